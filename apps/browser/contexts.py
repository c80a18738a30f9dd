"""Contexts with a feature's activations as HTML. Nothing imports Streamlit.

A firing token is shaded by the size of its activation, which is its tooltip; below zero it is
underlined as well; opened, a context lists the values as text.
"""

from collections.abc import Iterator, Sequence

from saelab.features.records import Example
from saelab.features.schema import N_BANDS
from saelab.features.search import AFTER, BEFORE
from saelab.spelling import characters

from .draw import number, text, title, token
from .html import Markup, html, joined

LISTED = 40  # values that an opened context lists at most


def shade(activation: float, largest: float) -> str:
    """How strongly a token is shaded: with |activation|, from 0.12 to 0.90."""
    strength = min(1.0, abs(activation) / largest) if largest else 0.0
    return f"--a:{0.12 + 0.78 * strength:.2f}"


def shaded(example: Example, first: int, last: int, largest: float) -> Markup:
    """Positions first to last of an example in the lines of its text: firing tokens shaded, the
    peak outlined, all between two of them one piece of text."""
    parts, quiet = [], []
    for group in characters(example.texts, first, last):
        body = "".join(example.texts[position] for position in group)
        strongest = max(group, key=lambda position: abs(example.activations[position]))
        activation = example.activations[strongest]
        if activation == 0:
            quiet.append(body)
            continue
        classes = "act neg" if activation < 0 else "act"
        classes += " peak" if example.position in group else ""
        values = ", ".join(number(example.activations[position]) for position in group)
        about = (classes, shade(activation, largest), values, text(body, lines=True))
        parts += [text("".join(quiet), lines=True)]
        parts += [html('<span class="{}" style="{}" title="{}">{}</span>', *about)]
        quiet = []
    return joined([*parts, text("".join(quiet), lines=True)])


def window(example: Example, width: int | None) -> tuple[int, int]:
    """First and last position shown: around the peak, a width of tokens of which two thirds stand
    before it; without a width all."""
    n_positions = len(example.texts)
    if width is None:
        return 1, n_positions
    before = BEFORE if width == BEFORE + AFTER else 2 * width // 3
    return max(1, example.position - before), min(
        n_positions, example.position + width - before + 1
    )


def example(context: Example, largest: float, width: int | None = BEFORE + AFTER) -> Markup:
    """One context: its peak's surroundings, which open to the values as text and to where they
    stand."""
    first, last = window(context, width)
    place = html(
        "{} · context {}, position {}", text(context.document), context.context, context.position
    )
    return html(
        '<details class="example"><summary><span class="peak-value">{}</span>'
        '<span class="snippet">{}</span></summary>'
        '<div class="whole">{}<div class="where">{}</div></div></details>',
        number(context.value),
        shaded(context, first, last, largest),
        joined(_values(context, first, last), " "),
        place,
    )


def _values(context: Example, first: int, last: int) -> Iterator[Markup]:
    """The firing tokens shown, each with its activation."""
    firing = [at for at in range(first, last) if context.activations[at]]
    for at in firing[:LISTED]:
        word = context.texts[at] or "…"
        yield html("{} {}", token(word), number(context.activations[at]))
    if len(firing) > LISTED:
        yield html("and {} more", len(firing) - LISTED)


def examples(
    contexts: Sequence[Example], largest: float, width: int | None = BEFORE + AFTER
) -> Markup:
    """Contexts one below the other."""
    return html(
        '<div class="examples">{}</div>', joined(example(c, largest, width) for c in contexts)
    )


def bands(
    contexts: Sequence[Example], largest: float, width: int | None = BEFORE + AFTER
) -> Markup:
    """Of each sign: top contexts, then those of every quantile band, strongest band first."""
    parts = []
    for sign, pole in ((1, ""), (-1, "Negative: ")):
        for band in (-1, *reversed(range(N_BANDS))):
            members = [one for one in contexts if (one.sign, one.band) == (sign, band)]
            if members:
                name, how = _band(band)
                parts += [title(pole + name, how), examples(members, largest, width)]
    return joined(parts)


def _band(band: int) -> tuple[str, str]:
    """What a band is called, and what it is."""
    if band < 0:
        return "Top contexts", "by peak activation; click one for its values"
    span = f"{100 * band // N_BANDS} to {100 * (band + 1) // N_BANDS}"
    return f"Percentiles {span}", "of all firings by activation, sampled"
