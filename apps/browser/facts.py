"""What is known of one feature besides its contexts, as HTML. Nothing imports Streamlit."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from saelab.features import words
from saelab.features.records import Bin, CoFiring, Feature, Logit, Match, Neighbour, Token
from saelab.features.stable import Stable

from .draw import (
    cell,
    grid,
    head,
    line,
    link,
    number,
    percent,
    side,
    stats,
    text,
    token,
    tokens,
)
from .html import EMPTY, Markup, html, joined

VERDICTS = {
    True: ("also found by", "yes"),
    False: ("not found by", "no"),
    None: ("nearest in", "no"),  # too wide to be matched one to one
}
SHOWN = 3  # strongest tokens beside another feature
FOUND = "found: paired one to one at a cosine of more than {:g}"


def matches(others: Sequence[Match], runs: Mapping[str, str] | None = None) -> Markup:
    """Per other SAE, whether it has this feature. runs: the run here of each SAE's name; its
    features are links then."""
    parts = []
    for match in others:
        verdict, classes = VERDICTS[match.found]
        run = (runs or {}).get(match.name)
        nearest = _there(match.nearest, run)
        pieces = [html("nearest there {}, cosine {}", nearest, number(match.cosine, 2))]
        pieces.append(html("random directions reach {}", number(match.null, 2)))
        if match.partner is not None:
            partner = _there(match.partner, run)
            pieces.append(html("paired with {}, {}", partner, number(match.partner_cosine, 2)))
        about = html(
            '<b title="{}">{} {}</b> <span>{}</span>',
            FOUND.format(match.threshold),
            verdict,
            text(match.name),
            joined(pieces, " · "),
        )
        parts.append(html('<p class="match {}">{}</p>', classes, about))
    return joined(parts)


def _there(feature: int, run: str | None) -> Markup:
    """A feature of another SAE, as a link where its run is here."""
    if run is None:
        return html("feature {}", feature)
    return link("feature", f"feature {feature}", run=run, feature=feature)


def header(
    feature: Feature, n_tokens: int, signed: bool, runs: Mapping[str, str] | None = None
) -> Markup:
    """The feature page's first lines: how often and how strongly it fires, and whether other SAEs
    found it."""
    row, others = feature.row, matches(feature.matches, runs)
    if not row.fired:
        never = f"This feature did not fire on the {n_tokens:,} tokens of the index."
        return html('<p class="empty">{}</p>{}', never, others)
    size = "|activation|" if signed else "activation"
    fired = f"{row.fired:,} of {n_tokens:,} tokens"
    pairs = [
        ("density", percent(row.density), f"{words.DENSITY}: {fired}"),
        ("firings", f"{row.fired:,}", "tokens on which the activation is not 0"),
        ("mean", number(row.mean), f"mean {size} over firing tokens"),
        ("max", number(row.max), "activation of largest size"),
    ]
    if signed:
        pairs.append(("positive", percent(row.positive), "share of firings above 0"))
    return stats(pairs) + others


def stability(known: Stable | None, feature: int) -> Markup:
    """In how many other seeds the feature comes again, its group's span there, and how far it has
    moved from its start."""
    if known is None:
        return EMPTY
    n = known.n_others
    of = {name: column[feature] for name, column in known.columns.items() if len(column)}
    pairs = []
    for name, said in (("cosine", "writes alike"), ("cofiring", "fires alike")):
        null = known.nulls[name]
        chance = "" if null is None else f"; by chance {percent(null)}"
        pairs.append((said, f"in {round(of[name] * n)} of {n} seeds", words.STABLE + chance))
    if not math.isnan(of["subspace"]):
        chance = number(known.nulls["subspace"], 2)
        why = f"{words.SUBSPACE}; by chance {chance}"
        pairs.append(("group's span", number(of["subspace"], 2), why))
    if "start" in of:
        pairs.append(("at its start", number(of["start"], 2), words.START))
    return stats(pairs)


def strong_tokens(strongest: Sequence[Token], by: str) -> Markup:
    """A small table of tokens by "total" or "mean" activation, those below 0 behind the others."""
    rows = []
    for one in strongest:
        often = f"{one.fired:,} of its {one.seen:,} occurrences"
        cells = (
            side(token(one.text)),
            cell(number(getattr(one, by))),
            cell(percent(one.selectivity)),
            cell(percent(one.coverage), "n", often),
        )
        rows.append(line(*cells))
    heads = (
        head("token", ""),
        head(by, "n", f"{by} activation on it"),
        head("selectivity", "n", words.SELECTIVITY),
        head("coverage", "n", words.COVERAGE),
    )
    return grid(heads, rows)


def neighbours(nearest: Sequence[Neighbour], run: str, **query: Any) -> Markup:
    """The nearest features, as links."""
    known = any(one.tokens for one in nearest)
    rows = [
        line(
            _linked(one.feature, run, query),
            cell(number(one.cosine, 2)),
            *_tokens(one.tokens, known),
        )
        for one in nearest
    ]
    heads = (head("feature"), head("cosine", "n", words.NEIGHBOUR), *_tokens_head(known))
    return grid(heads, rows)


def cofiring(others: Sequence[CoFiring], run: str, **query: Any) -> Markup:
    """The features that fire on the same tokens, as links."""
    known = any(one.tokens for one in others)
    rows = [
        line(
            _linked(one.feature, run, query),
            cell(percent(one.jaccard), "n", f"{one.both:,} tokens of the sample"),
            cell(number(one.pmi, 2)),
            *_tokens(one.tokens, known),
        )
        for one in others
    ]
    heads = (
        head("feature"),
        head("together", "n", words.JACCARD),
        head("bits", "n", words.PMI),
        *_tokens_head(known),
    )
    return grid(heads, rows)


def _linked(feature: int, run: str, query: Mapping[str, Any]) -> Markup:
    return side(link("feature", str(feature), run=run, feature=feature, **query), "n")


def _tokens(strongest: Sequence[str], known: bool) -> list[Markup]:
    """The cell of a feature's strongest tokens; none where tokens are not known, as on images."""
    # A feature that never fires has none.
    return [cell(tokens(strongest[:SHOWN]) or "–", "tokens")] if known else []


def _tokens_head(known: bool) -> list[Markup]:
    return [head("strongest tokens", "")] if known else []


def heads(shares: Mapping[Any, float], of: str = "head", help_: str = words.HEADS) -> Markup:
    """The share of the decoder row per attention head, or per hook, with bars."""
    largest = max(shares.values(), default=0.0) or 1.0
    rows = []
    for number_, share in shares.items():
        bar = html('<i style="width:{:.0f}%"></i>', 100 * share / largest)
        rows.append(line(side(str(number_), "n"), cell(percent(share)), cell(bar, "bar")))
    return grid((head(of), head("share", "n", help_), head("")), rows)


def output_tokens(promoted: Sequence[Logit], suppressed: Sequence[Logit]) -> Markup:
    """The output tokens that a feature raises most, then those it lowers most, with bars."""
    largest = max((abs(one.value) for one in [*promoted, *suppressed]), default=0.0) or 1.0
    tables = []
    for name, logits in (("promotes", promoted), ("suppresses", suppressed)):
        rows = []
        for one in logits:
            kind = "neg" if one.value < 0 else ""
            bar = html(
                '<i class="{}" style="width:{:.0f}%"></i>', kind, 100 * abs(one.value) / largest
            )
            rows.append(line(side(token(one.text)), cell(number(one.value, 2)), cell(bar, "bar")))
        tables.append(grid([head(name, ""), head("logit"), head("")], rows))
    return joined(tables)


def histogram(bins: Sequence[Bin]) -> Markup:
    """How often a feature fired, by activation; bars span their bin, a quarter of an octave."""
    low, high = min(0.0, bins[0].low), max(0.0, bins[-1].high)
    most = max(part.fired for part in bins)
    bars = []
    for part in bins:
        left, width = _share(part.low, low, high), 100 * (part.high - part.low) / (high - low)
        size = (
            f"left:{left:.2f}%;width:{max(width, 0.2):.2f}%;height:{100 * part.fired / most:.1f}%"
        )
        about = f"{number(part.low)} to {number(part.high)}: {part.fired:,}"
        kind = "neg" if part.low < 0 else ""
        bars.append(html('<i class="{}" style="{}" title="{}"></i>', kind, size, about))
    told = (
        f"histogram of {sum(part.fired for part in bins):,} activations from "
        f"{number(bins[0].low)} to {number(bins[-1].high)}; the highest bar has {most:,}"
    )
    ticks = joined(
        html('<span style="left:{:.2f}%">{}</span>', _share(at, low, high), f"{at:g}")
        for at in _ticks(low, high)
    )
    return html(
        '<div class="histogram" role="img" aria-label="{}">{}</div><div class="axis">{}</div>',
        told,
        joined(bars),
        ticks,
    )


def _share(at: float, low: float, high: float) -> float:
    """Where a value lies, in per cent of the way."""
    return 100 * (at - low) / (high - low)


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from low to high, at most so many: multiples of 1, 2 or 5 of a power of ten."""
    step = 10.0 ** math.floor(math.log10(high - low))
    wide = next(step * by for by in (0.1, 0.2, 0.5, 1, 2, 5) if (high - low) / (step * by) < most)
    first, last = math.ceil(low / wide), math.floor(high / wide)
    return [round(number * wide, 12) for number in range(first, last + 1)]
