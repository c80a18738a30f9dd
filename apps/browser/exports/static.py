"""A run as a folder of pages that open from disk: a list with a search, and a page per feature.

index.html  style.css  plotly.min.js  features/7.html ...
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import addresses, draw, explanation, tables
from ..html import EMPTY, Markup, data, html
from . import sections
from .document import STYLE, page, style
from .subject import Subject

SAMPLE = 24  # features that are drawn to say how large a folder will be
# Rows that hold every word, also in the texts that are not shown whole; drawn as text alone.
SEARCH = Markup("""
const rows = JSON.parse(document.getElementById("rows").textContent);
const box = document.querySelector(".search");
const body = document.querySelector("table.features tbody");
const shown = document.getElementById("shown"), MOST = 300;
const said = rows.map((row) => row.join("\\u0000").toLowerCase());
function cell(line, text, kind) {
  const place = line.appendChild(document.createElement("td"));
  if (kind) place.className = kind;
  place.textContent = text;
  return place;
}
function draw() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const found = rows.filter((_, n) => words.every((word) => said[n].includes(word)));
  body.replaceChildren();
  for (const [feature, label, tokens, density, largest, words_, score] of found.slice(0, MOST)) {
    const line = body.appendChild(document.createElement("tr"));
    const link = cell(line, "", "n").appendChild(document.createElement("a"));
    link.href = `features/${feature}.html`;
    link.textContent = feature;
    cell(line, label);
    const strongest = cell(line, "", "tokens");
    for (const token of tokens) {
      const mark = strongest.appendChild(document.createElement("span"));
      mark.className = "tok";
      mark.textContent = token;
      strongest.append(" ");
    }
    for (const number of [density, largest]) cell(line, number, "n");
    cell(line, words_, "words");
    cell(line, score, "n");
  }
  const rest = found.length > MOST ? `, the first ${MOST} shown` : "";
  shown.textContent = `${found.length} of ${rows.length} features${rest}`;
}
box.addEventListener("input", draw);
draw();
""")


def size(subject: Subject, features: Sequence[int]) -> int:
    """About how many bytes a folder of these features takes, from SAMPLE of their pages."""
    step = max(1, len(features) // SAMPLE)
    sample = features[::step]
    pages = sum(len(_page(subject, number, {}).encode()) for number in sample)
    rows = len(str([_row(subject, number) for number in sample]))
    return round((pages + rows) / max(len(sample), 1) * len(features))


def write(
    subject: Subject,
    features: Sequence[int],
    out: Path,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write the folder. progress: called with the number of pages written.

    write(subject.open(Path("runs/demo")), [7, 12], Path("demo-pages"))
    """
    folder = out / "features"
    folder.mkdir(parents=True)
    (out / STYLE).write_text(style(), encoding="utf-8")
    around = {
        number: (features[place - 1], features[(place + 1) % len(features)])
        for place, number in enumerate(features)
    }
    for done, number in enumerate(features, start=1):
        written = _page(subject, number, around)
        (folder / f"{number}.html").write_text(written, encoding="utf-8")
        if progress is not None:
            progress(done)
    (out / "index.html").write_text(_list(subject, features), encoding="utf-8")


def _page(subject: Subject, number: int, around: Mapping[int, tuple[int, int]]) -> str:
    with addresses.addressed(lambda name, query: _address(name, query, around)):
        body = [_menu(number, around), sections.feature(subject, number)]
        return page(f"{subject.name}: feature {number}", body, beside="../")


def _address(name: str, query: Mapping[str, Any], known: Mapping[int, Any]) -> str | None:
    """Where a link leads within the folder; None if what it leads to is not there."""
    there = name == "feature" and query.get("feature") in known
    return f"{query['feature']}.html" if there else None


def _menu(number: int, around: Mapping[int, tuple[int, int]]) -> Markup:
    before, after = around.get(number, (number, number))
    steps = html(
        '<a class="step prev" href="{}.html">← {}</a><a class="step next" href="{}.html">{} →</a>',
        *(before, before, after, after),
    )
    return html('<nav class="head"><a href="../index.html">all features</a>{}</nav>', steps)


def _list(subject: Subject, features: Sequence[int]) -> str:
    summary = subject.reader.summary
    table = draw.grid(
        [
            draw.head("feature"),
            draw.head("label", ""),
            draw.head("strongest tokens", ""),
            draw.head("density"),
            draw.head("max"),
            draw.head("explanation", ""),
            draw.head("detection"),
        ],
        [],
        "features",
    )
    box = html(
        '<input class="search" type="search" aria-label="{}" placeholder="{}">',
        *("Search features", "words in tokens, labels, explanations"),
    )
    rows = data([_row(subject, number) for number in features], "rows")
    script = html("<script>{}</script>", SEARCH)
    count = html(' <span class="quiet" id="shown" role="status"></span>')
    body = [_about(subject), tables.indexed(summary), box, count, table, rows, script]
    return page(f"{subject.name}: features", body, beside="")


def _about(subject: Subject) -> Markup:
    from saelab.runs import read

    header = read(subject.folder.header)
    if not header:
        return html("<h1>{}</h1>", draw.text(subject.name))
    report = read(subject.folder.report)
    shown = tables.report(report, subject.name) if report else EMPTY
    return tables.about(subject.name, header) + shown


def _row(subject: Subject, number: int) -> list[Any]:
    """What the list holds of a feature, as SEARCH takes it apart."""
    row = subject.reader.feature(number).row
    words, score = explanation.short(subject.explanations.get(number))
    return [
        number,
        subject.annotation(number).label,
        [token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "·") for token in row.tokens],
        draw.percent(row.density),
        draw.number(row.max),
        words,
        "" if score.value is None else draw.number(score.value, 2),
    ]
