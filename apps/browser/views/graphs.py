"""Attribution graphs: which features make the model continue a prompt as it does, drawn, with how
far they are to be believed."""

from pathlib import Path
from typing import Any

import streamlit as st

from saelab.errors import FailedRun, UsageError
from saelab.files import write_json
from saelab.runs import RunFolder

from .. import canvas, charts_of_graphs, graph, load, saving, state
from ..exports import figures, records
from ..html import html
from . import attention

LARGEST = 2000  # nodes drawn
LINKS = 3000  # of a saved figure
TOKENS = 3  # strongest ones, by which an unnamed feature is called
NONE_YET = html(
    "No graphs here yet: <code>saelab graph --run RUN --prompt TEXT --out graphs/mine</code> makes "
    "one, from a transcoder of each layer."
)


def show() -> None:
    """The page."""
    folder = RunFolder(_folder())
    table = load.document(folder.graphs)
    slug = _prompt(table["prompts"])
    document = load.document(folder.graph(slug))
    if not document:
        state.stop(html("{} is gone: trace it again.", str(folder.graph(slug))))
    state.titled("Graph")
    state.show(graph.about(document))
    for note in table["notes"]:
        state.show(html('<p class="quiet">{}</p>', note))
    runs = _runs(table["runs"])
    payload = graph.payload(document, runs, _labels(runs), LARGEST)
    done = canvas.graph(payload, f"graph-{folder.path.name}-{slug}")
    if done.kept and done.kept["slug"] == slug:
        _save(folder, document, done.kept)
    run = next(iter(runs.values()), None)
    if run:
        text = document["metadata"]["prompt"]
        attention.section(done.picked, [text], f"{folder.path.name}-{slug}", load.runs()[run])
    state.show(graph.faithfulness(table["faithfulness"]))
    saving.offer(lambda: _files(document, table["faithfulness"], payload))


def _files(document: Any, faithfulness: Any, payload: Any) -> list[saving.File]:
    """What of the page may be saved: the graph drawn, its nodes and links, what was measured."""
    slug = document["metadata"]["slug"]

    def drawn() -> str:
        return figures.to_html(charts_of_graphs.drawn(payload, LINKS))

    def made() -> list[records.Table]:
        parts = {name: document[name] for name in ("nodes", "links")}
        return [
            *records.within(f"graph-{slug}", parts),
            *records.within("graph", {"faithfulness": faithfulness}),
        ]

    files = saving.tables(slug, made, [one.name for one in made()])
    return [saving.File(f"graph-{slug}.html", drawn), *files]


def _folder() -> Path:
    folders = load.graphs()
    if not folders:
        state.stop(NONE_YET)
    name = state.query("graph", next(iter(folders)))
    if name not in folders:
        name = next(iter(folders))
    if len(folders) > 1:
        names = list(folders)
        chosen = st.selectbox("Folder", names, names.index(name), key="graph-folder")
        st.query_params["graph"] = name = chosen
    return folders[name]


def _prompt(rows: list[dict[str, Any]]) -> str:
    """The graph that is shown, of those of the folder."""
    slugs = {row["slug"]: row["prompt"] for row in rows}
    asked = st.query_params.get("prompt", "")
    if len(slugs) > 1:
        start = list(slugs).index(asked) if asked in slugs else 0
        chosen = st.selectbox("Prompt", list(slugs), start, format_func=slugs.__getitem__)
        asked = st.query_params["prompt"] = chosen or asked
    return asked if asked in slugs else next(iter(slugs))


def _runs(folders: dict[str, str]) -> dict[str, str]:
    """The runs that are here by the hook that their features are at."""
    names = {folder.resolve(): name for name, folder in load.runs().items()}
    places = {hook: Path(folder).resolve() for hook, folder in folders.items()}
    return {hook: names[place] for hook, place in places.items() if place in names}


def _labels(runs: dict[str, str]) -> graph.Labels:
    """What a feature is called: its strongest tokens, where its run has an index."""
    indexes = {}
    for hook, name in runs.items():
        try:
            indexes[hook] = load.index(load.runs()[name])
        except (UsageError, FailedRun):  # of another version, or damaged: the run's page says so
            continue

    def label(hook: str, number: int) -> str:
        index = indexes.get(hook)
        if index is None:
            return ""
        (row,) = index.rows([number])
        return " ".join(repr(token)[1:-1] for token in row.tokens[:TOKENS])

    return label


def _save(folder: RunFolder, document: dict[str, Any], kept: dict[str, Any]) -> None:
    """Keep what was pinned, named and grouped in the graph's own file, and in circuit-tracer's."""
    names = kept["names"]
    nodes = [
        node
        if node["feature_type"] == "logit"
        else node | {"clerp": names.get(node["node_id"], "")}
        for node in document["nodes"]
    ]
    parameters = {"pinnedIds": kept["pinned"], "supernodes": kept["groups"]}
    changed = {"nodes": nodes, "qParams": document["qParams"] | parameters}
    slug = document["metadata"]["slug"]
    foreign = folder.path / "circuit-tracer" / f"{slug}.json"
    if foreign.is_file():
        write_json(foreign, load.document(foreign) | changed)
    write_json(folder.graph(slug), document | changed)
