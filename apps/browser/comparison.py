"""The comparison of two runs as HTML. Nothing imports Streamlit."""

from collections.abc import Mapping
from typing import Any

from .draw import (
    cell,
    estimate,
    grid,
    head,
    line,
    link,
    number,
    percent,
    row,
    side,
    stats,
    text,
    title,
)
from .html import EMPTY, Markup, html, joined

SIZE = 25  # rows at once
SIDES = (("first", "A"), ("second", "B"))
MARKS = {"better": "yes", "not told apart": "no", "–": "no"}


def differences(document: Mapping[str, Any]) -> Markup:
    """Every metric of both with the paired difference, and what it says of B."""
    heads = [
        head("", ""),
        head("better", ""),
        head("A"),
        head("B"),
        head("B − A"),
        head("95% interval"),
        head("least", title="what a difference must exceed to be told apart from 0"),
        head("B is", ""),
    ]
    rows = [_difference(each) for each in document["differences"]]
    return title("Paired differences", _how(document)) + grid(heads, rows, "report")


def answers(document: Mapping[str, Any]) -> Markup:
    """The two questions, a sentence each; and whether the two share their start."""
    told = [html("<p>{}</p>", said) for said in document.get("sentences", {}).values()]
    start = document.get("start")
    if start and start["same"]:
        shared = "Both started from the same random rows: what they share may be that start."
        told.append(html('<p class="empty">{}</p>', shared))
    if start and start["first"]["value"] is not None:
        stayed = " and ".join(
            f"{_share(start[side])} of {letter}'s" for side, letter in SIDES if start[side]["value"]
        )
        if stayed:
            words = f"Live features still above cosine {start['threshold']} with their random start"
            told.append(html('<p class="quiet">{}: {}.</p>', words, stayed))
    return joined(told)


def over_seeds(document: Mapping[str, Any]) -> Markup:
    """The configurations of the two, over their seeds; nothing where no metric has an interval."""
    compared = document.get("configurations") or {}
    known = [each for each in compared.get("differences", ()) if each["pairing"] != "unknown"]
    if not known:
        return EMPTY
    names = ("", "better", "n", "B − A", "95% interval", "least", "B is")
    heads = [head(name, "" if name in ("", "better", "B is") else "n") for name in names]
    about = f"Student's t over seeds; A {len(compared['first'])} runs, B {len(compared['second'])}"
    rows = [_over_seeds(each) for each in known]
    return title("Configurations, over seeds", about) + grid(heads, rows, "report")


def _over_seeds(each: Mapping[str, Any]) -> Markup:
    verdict = each["verdict"] or "–"
    mark = html('<span class="mark {}">{}</span>', MARKS.get(verdict, ""), verdict)
    return line(
        side(text(each["label"])),
        cell("–" if each["better"] == "none" else each["better"], ""),
        cell(str(each["n"])),
        cell(number(each["value"])),
        cell(f"{number(each['low'])} to {number(each['high'])}"),
        cell(number(each["least"])),
        cell(mark, ""),
    )


def _difference(each: Mapping[str, Any]) -> Markup:
    known = each["low"] is not None
    between = f"{number(each['low'])} to {number(each['high'])}" if known else "–"
    verdict = each["verdict"] or ("differing" if known and each["low"] * each["high"] > 0 else "–")
    mark = html('<span class="mark {}">{}</span>', MARKS.get(verdict, ""), verdict)
    values = (each["first"], each["second"], each["value"])
    return line(
        side(text(each["label"])),
        cell("–" if each["better"] == "none" else each["better"], ""),
        *(cell(number(value)) for value in values),
        cell(between),
        cell(number(each["least"])),
        cell(mark, ""),
    )


def _how(document: Mapping[str, Any]) -> str:
    how = "bootstrap over documents"
    if document["interval"] == "student":
        how = "fewer than 30 documents: Student's t"
    read = f"{document['tokens']:,} held-out tokens of {document['documents']} documents"
    return f"{read}, paired; {how}"


def shares(document: Mapping[str, Any]) -> Markup:
    """How many features the two share."""
    matched, fired = document["matched"], document["cofiring"]
    how = "one to one" if matched["method"] == "hungarian" else "one to one, of cosines from 0.5"
    parts = (
        ("write alike", matched, f"decoder rows paired {how}, cosine above {matched['threshold']}"),
        (
            "fire alike",
            fired,
            f"activations on {fired['tokens']:,} tokens paired one to one, correlation above "
            f"{fired['threshold']}",
        ),
    )
    cells = []
    for name, part, why in parts:
        both = ", ".join(
            f"{_share(part[which])} of {letter}'s"
            for which, letter in (("first", "A"), ("second", "B"))
        )
        by_chance = f"; by chance {_share(part['first'], 'null')}; shares of live features"
        cells.append((name, f"{part['pairs']:,} pairs", f"{why}; {both}{by_chance}"))
        cells.append((f"that {name}", both, why + by_chance))
    return title("Features", "live ones: those that fire on these tokens") + stats(cells)


def _share(field: Mapping[str, Any], name: str = "value") -> str:
    return "–" if field[name] is None else percent(field[name])


def views(document: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """What can be listed, by its name in the address: words and how many."""
    splitting = document["splitting"]
    return {
        "matched": ("write alike", document["matched"]["pairs"]),
        "cofiring": ("fire alike", document["cofiring"]["pairs"]),
        "first": ("only in A", len(document["only"]["first"])),
        "second": ("only in B", len(document["only"]["second"])),
        "split-first": ("A's split in B", len(splitting["first"]["listed"])),
        "split-second": ("B's split in A", len(splitting["second"]["listed"])),
    }


def menu(document: Mapping[str, Any], view: str, query: Mapping[str, Any]) -> Markup:
    """Links to what can be listed, the one shown marked."""
    parts = [
        link(
            "compare",
            f"{words} {n:,}",
            "step on" if name == view else "step",
            **query,
            show=name,
        )
        for name, (words, n) in views(document).items()
    ]
    return html('<div class="head">{}</div>', joined(parts))


def paging(total: int, page: int, query: Mapping[str, Any]) -> Markup:
    """Which rows are shown, with links to those before and after."""
    if total <= SIZE:
        return EMPTY
    last = (total - 1) // SIZE
    before = link("compare", "←", "step prev", **query, page=page - 1) if page else EMPTY
    after = link("compare", "→", "step next", **query, page=page + 1) if page < last else EMPTY
    span = f"{page * SIZE + 1:,} to {min((page + 1) * SIZE, total):,} of {total:,}"
    return html('<div class="head"><span class="quiet">{}</span>{}{}</div>', span, before, after)


def splitting(document: Mapping[str, Any], which: str) -> Markup:
    """How the features of one SAE are covered by the other's best few, beside chance."""
    part = document["splitting"][which]
    mine, other = ("A", "B") if which == "first" else ("B", "A")
    covered = part["covered"]
    heads = [head("", ""), *(head(f"best {each['parts']}") for each in covered)]
    rows = [
        row(f"firings of a feature of {mine} covered", *(_share(each) for each in covered)),
        row("by chance (other tokens)", *(_share(each, "null") for each in covered)),
    ]
    meaning = (
        f"{_share(part['split'])} of {part['features']:,} features of {mine} are split (by chance "
        f"{_share(part['split'], 'null')}): no feature of {other} covers "
        f"{percent(document['splitting']['share'])} of the firings, several do; a part is one at "
        "least half of whose firings are the feature's"
    )
    return title("Splitting", meaning) + grid(heads, rows, "report")


def absorption(document: Mapping[str, Any]) -> Markup:
    """How often labels are absorbed, where `saelab compare --labels` was given some."""
    part = document.get("absorption")
    if part is None:
        return EMPTY
    heads = [head("label", ""), head("A"), head("B"), head("B − A"), head("B is", "")]
    heads += [head("F1 of A's latents"), head("F1 of B's")]
    rows = []
    for one in part["properties"]:
        rates = [estimate(one[side]["rate"]) for side in ("first", "second")]
        scores = [number(one[side]["main_f1"], 2) for side in ("first", "second")]
        numbers = [*rates, estimate(one), one["verdict"] or "–", *scores]
        rows.append(row(text(one["label"]), *numbers))
    meaning = (
        "share of a label's tokens on which its latents are silent and another latent carries it; "
        f"last token of {part['texts']:,} texts, half of them to choose latents on"
    )
    left_out = [f"{label}: left out, {why}." for label, why in part["left_out"].items()]
    quiet = html('<p class="quiet">{}</p>', text(" ".join(left_out))) if left_out else EMPTY
    return title("Absorption", meaning) + grid(heads, rows, "report") + quiet
