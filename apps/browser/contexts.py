"""Contexts with a feature's activations as HTML. Nothing imports Streamlit.

A firing token is shaded by the size of its activation, which is its tooltip; below zero it is
underlined as well; opened, a context lists the values as text.
"""

from collections.abc import Iterator, Sequence

from saelab.features import words
from saelab.features.records import Example
from saelab.features.schema import N_BANDS, TOP
from saelab.features.search import AFTER, BEFORE
from saelab.spelling import characters

from . import pictures
from .draw import drawn, number, text, title
from .html import EMPTY, Markup, html, joined

LISTED = 40  # values that an opened context lists at most
# Top contexts, and contexts of a band, that are shown; of a dense feature, whose tokens nearly all
# have a value of their own, fewer.
FEW, DENSE, EVERY = (5, 2), (4, 1), (1000, 1000)
DENSITY = 0.05


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
    return joined([*parts, text("".join(quiet), lines=True)]).rstrip("\n")


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
    """One context: a firing's surroundings, which open to the values as text and to where they
    stand."""
    first, last = window(context, width)
    place = html(
        "{} · context {}, position {}", text(context.document), context.context, context.position
    )
    return html(
        '<details class="example"><summary><span class="peak-value">{}{}</span>'
        '<span class="snippet">{}</span></summary>'
        '<div class="whole">{}<div class="where">{}</div></div></details>',
        number(context.value),
        _copies(context.copies),
        shaded(context, first, last, largest),
        " · ".join(_values(context, first, last)),
        place,
    )


def _copies(copies: int) -> Markup:
    if copies < 2:
        return EMPTY
    return html(' <b title="{} {}">×{}</b>', copies, words.COPIES, copies)


def _values(context: Example, first: int, last: int) -> Iterator[str]:
    """The firing tokens shown, each with its activation."""
    firing = [at for at in range(first, last) if context.activations[at]]
    for at in firing[:LISTED]:
        word = drawn(context.texts[at]) or "…"
        yield f"{word} {number(context.activations[at])}"
    if len(firing) > LISTED:
        yield f"and {len(firing) - LISTED} more"


def examples(
    contexts: Sequence[Example], largest: float, width: int | None = BEFORE + AFTER
) -> Markup:
    """Contexts one below the other; images side by side."""
    if contexts and contexts[0].picture:
        return pictures.examples(contexts, largest)
    parts = (example(context, largest, width) for context in contexts)
    return html('<div class="examples">{}</div>', joined(parts))


def bands(
    contexts: Sequence[Example],
    largest: float,
    width: int | None = BEFORE + AFTER,
    most: tuple[int, int] = EVERY,
) -> Markup:
    """Of each sign by itself: top contexts, then those of every quantile band of the firings,
    strongest band first. most: of the top ones, and of each band, at most so many."""
    signs = [sign for sign in (1, -1) if any(one.sign == sign for one in contexts)]
    parts = []
    for sign in signs:
        if len(signs) > 1:
            parts.append(html('<h2 class="pole">{} 0</h2>', "Above" if sign > 0 else "Below"))
        for band in (TOP, *reversed(range(N_BANDS))):
            members = [one for one in contexts if (one.sign, one.band) == (sign, band)]
            members = members[: most[band != TOP]]
            if members:
                parts += [title(*_band(band, members)), examples(members, largest, width)]
    return joined(parts)


def _band(band: int, members: Sequence[Example]) -> tuple[str, str]:
    """What a band is called, and what it is."""
    if band == TOP:
        if members[0].picture:
            return "Top images", "highest peaks; click one for its patches"
        return "Top contexts", "highest peaks; click one for its values"
    low, high = 100 * band // N_BANDS, 100 * (band + 1) // N_BANDS
    sizes = sorted((abs(one.value), one.value) for one in members)
    values = f"{number(sizes[0][1])} to {number(sizes[-1][1])} shown"
    return f"Percentiles {low} to {high}", f"of its firings by activation, sampled: {values}"
