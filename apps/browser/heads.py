"""The heads of an attention SAE as HTML: what kinds they are, what they write, from where. Nothing
imports Streamlit."""

from collections.abc import Mapping
from typing import Any

from .draw import cell, estimate, grid, head, line, link, number, percent, side, text, title, tokens
from .html import Markup, html

LISTED = 20  # features; heads.json has all
THEMES = (
    "how many different things its ten strongest features are about, of ten; of random features"
)


def section(document: Mapping[str, Any], run: str) -> Markup:
    """The section for a run's heads.json."""
    return _kinds(document) + _prefixes(document) + _features(document, run)


def _kinds(document: Mapping[str, Any]) -> Markup:
    names = list(document["heads"][0]["kinds"])
    heads = [head(name, "") for name in ("head", "called", *names)]
    heads += [head("writes", title="features of which it writes most"), head("themes", "", THEMES)]
    rows = []
    for one in document["heads"]:
        shares = (one["kinds"][name] for name in names)
        cells = [
            cell(estimate(share), "", f"chance gives {number(share['null'])}") for share in shares
        ]
        bounds = " to ".join(number(bound) for bound in one.get("themes_of_chance", ()))
        themes = "–" if one["themes"] is None else html("{} ({})", number(one["themes"]), bounds)
        called = text(", ".join(one["called"]) or "–")
        written = cell(f"{one['n_written']:,}")
        rows.append(line(side(f"h{one['head']}"), cell(called, ""), *cells, written, cell(themes)))
    sizes = document["sequences"]
    about = f"shares of attention on {sizes['n']} sequences of {sizes['part']} random tokens, \
repeated; called by what is {percent(sizes['clear'])} of the attention above chance"
    return title("Heads", about) + grid(heads, rows)


def _prefixes(document: Mapping[str, Any]) -> Markup:
    """How the heads that do induction score where more tokens match; nothing without such heads, or
    in a document of an earlier version."""
    rows = [
        line(side(f"h{one['head']}"), *(cell(estimate(share)) for share in one["by_prefix"]))
        for one in document["heads"]
        if "induction" in one["called"] and "by_prefix" in one
    ]
    if not rows:
        return html("")
    heads = [head("head", ""), *(head(str(n)) for n in document["sequences"]["prefixes"])]
    about = "attention to the token that followed, where so many tokens before it match"
    return title("Induction", about) + grid(heads, rows)


def _features(document: Mapping[str, Any], run: str) -> Markup:
    rows = []
    for one in document["features"][:LISTED]:
        place = one["from"]
        even = percent(document["places"][place])
        where = html("{} {}", text(place), percent(one["places"][place]))
        rows.append(
            line(
                side(link("feature", str(one["feature"]), run=run, feature=one["feature"])),
                cell(f"{one['firings']:,}"),
                cell(f"h{one['head']}", ""),
                cell(estimate(one["share"]), "", f"chance gives {number(one['share']['null'])}"),
                cell(where, "", f"if all places brought the same: {even}"),
                cell(tokens(one["sources"]), ""),
            )
        )
    names = ("feature", "firings", "head", "its share", "above chance from", "such as")
    heads = [head(name, "n" if name == "firings" else "") for name in names]
    agreement = document["agreement"]
    about = html(
        "by direct contributions on {} documents; rank correlation with the decoder's shares {}",
        f"{document['n_documents']:,}",
        estimate(agreement),
    )
    return title("Which head writes a feature", about) + grid(heads, rows)
