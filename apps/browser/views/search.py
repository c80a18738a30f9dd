"""Text search over the corpus: places where a text stands, and the features at home there."""

from saelab.features.records import Hit, Passage, Table

from .. import draw, load, state, tables
from ..html import html, joined

TOKENS, FEATURES = 40, 15  # at most so many of each are listed


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    state.titled("Search", name)
    text = state.search_box(name, "text in the corpus").strip()
    if not text:
        state.stop(
            f"Type a text to find it in {index.summary['n_tokens']:,} tokens, "
            "and the features that fire around it."
        )
    tokens, passages = load.passages(index, text)
    matching = load.table(index, "matches", True, text, FEATURES, 0)
    hits = load.hits(index, text)
    if not (tokens or matching.rows or passages):
        state.stop(
            html(
                "<code>{}</code> is nowhere in the indexed contexts.",
                text,
            )
        )
    if tokens:
        first = draw.tokens(tokens[:TOKENS])
        state.show(draw.title("Tokens", f"{len(tokens):,}") + html("<p>{}</p>", first))
    if matching.rows:
        _features(name, text, matching, (index.summary["others"] or [{}])[0], hits)
    if passages:
        _contexts(name, passages)


def _features(name: str, text: str, matching: Table, other: dict, hits: dict[int, Hit]) -> None:
    every = draw.link("features", f"all {matching.total:,}", run=name, q=text)
    address = {"sort": "matches", "descending": True, "q": text}
    table = tables.table(matching.rows, name, address, other, links=False, hits=hits)
    state.show(draw.title("Features", html("that match; {}", every)) + table)


def _contexts(name: str, passages: list[Passage]) -> None:
    body = joined(tables.passage(passage, name) for passage in passages)
    meaning = f"best {len(passages)}, with the features that fire there"
    state.show(draw.title("Contexts", meaning) + body)
