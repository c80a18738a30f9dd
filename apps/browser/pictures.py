"""Images with a feature's activations as HTML: the image as its model saw it, its patches shaded by
the size of the activation. Nothing imports Streamlit.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from saelab.features.picture import Picture
from saelab.features.records import Example

from . import draw
from .html import EMPTY, Markup, html, joined

SIDE = 160  # pixels of an image among others
LARGE = 480  # of one alone
GOLDEN = 0.618034  # of the colour circle, from one concept's hue to the next


def shade(activation: float, largest: float) -> str:
    """How strongly a patch is shaded: with |activation|, from 0.15 to 0.85."""
    strength = min(1.0, abs(activation) / largest) if largest else 0.0
    return f"{0.15 + 0.70 * strength:.2f}"


def address(jpeg: bytes, kind: str = "jpeg") -> str:
    """An image's bytes as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(jpeg).decode()}"


def shaded(picture: Picture, values: Mapping[int, float], largest: float, side: int) -> Markup:
    """An image with patches shaded. values: activation by number of the patch."""
    patches = (_patch(picture, patch, value, largest) for patch, value in values.items())
    return _framed(picture, joined(patches), side)


def _framed(picture: Picture, above: Markup, side: int) -> Markup:
    return html(
        '<span class="picture" style="width:{}px"><img src="{}" alt="">{}</span>',
        *(side, address(picture.jpeg), above),
    )


def _patch(picture: Picture, patch: int, value: float, largest: float) -> Markup:
    kind = "patch neg" if value < 0 else "patch"
    strength, said = shade(value, largest), draw.number(value)
    return html(
        '<i class="{}" style="{};--a:{}" title="{}"></i>',
        *(kind, box(picture, patch), strength, said),
    )


def box(picture: Picture, patch: int) -> str:
    """Where a patch lies, as style."""
    rows, columns, *_ = picture.grid
    row, column = divmod(patch, columns)
    size = f"width:{100 / columns:.3f}%;height:{100 / rows:.3f}%"
    return f"left:{100 * column / columns:.3f}%;top:{100 * row / rows:.3f}%;{size}"


def example(context: Example, picture: Picture, largest: float) -> Markup:
    """One image of a feature, which leads to the patches' features."""
    prefix = picture.grid.prefix
    firing = enumerate(context.activations[prefix:])
    values = {patch: value for patch, value in firing if value}
    shown = shaded(picture, values, largest, SIDE)
    peak = context.position - prefix
    opened = draw.change("picture", shown, "", context=context.context, patch=peak)
    return html(
        '<figure class="of-picture">{}<figcaption><b>{}</b> {}</figcaption></figure>',
        *(opened, draw.number(context.value), context.document),
    )


def examples(contexts: Iterable[Example], largest: float) -> Markup:
    """Images side by side."""
    parts = (example(one, one.picture, largest) for one in contexts if one.picture)
    return html('<div class="pictures">{}</div>', joined(parts))


def clickable(picture: Picture, chosen: int, kind: str) -> Markup:
    """An image alone, each patch of which leads to its features; under it the labels of a kind,
    where one is chosen."""
    overlay = EMPTY
    if kind in picture.kinds and picture.labels is not None:
        drawn = overlaid(picture.labels[..., picture.kinds.index(kind)])
        overlay = html('<img class="overlay" src="{}" alt="">', address(drawn, "png"))
    n_patches = picture.grid.rows * picture.grid.columns
    links = (_link(picture, patch, patch == chosen) for patch in range(n_patches))
    return _framed(picture, overlay + joined(links), LARGE)


def _link(picture: Picture, patch: int, is_chosen: bool) -> Markup:
    body = html(
        '<i class="{}" style="{}"></i>', "at on" if is_chosen else "at", box(picture, patch)
    )
    return draw.change("picture", body, "", context=picture.context, patch=patch)


def overlaid(labels_HW: NDArray[np.int16]) -> bytes:
    """A PNG of the labels in colours, half transparent; clear where there is none."""
    from PIL import Image

    rgba_HW4 = np.zeros((*labels_HW.shape, 4), np.uint8)
    for label in np.unique(labels_HW[labels_HW >= 0]).tolist():
        rgba_HW4[labels_HW == label] = (*colour(label), 150)
    file = io.BytesIO()
    Image.fromarray(rgba_HW4).save(file, "PNG")
    return file.getvalue()


def colour(label: int) -> tuple[int, int, int]:
    """Of a concept: hues far from those of its neighbours in number."""
    turned = (6 * (label * GOLDEN % 1) + np.array([5.0, 3.0, 1.0])) % 6
    part = np.clip(np.minimum(turned, 4 - turned), 0, 1)
    red, green, blue = (230 * (1 - 0.8 * part)).astype(int).tolist()
    return red, green, blue


def legend(picture: Picture, kind: str) -> Markup:
    """What the colours of a kind mean."""
    if picture.labels is None or kind not in picture.kinds:
        return EMPTY
    labels_HW = picture.labels[..., picture.kinds.index(kind)]
    numbers, counts = np.unique(labels_HW[labels_HW >= 0], return_counts=True)
    order = np.argsort(-counts)
    return html(
        '<p class="legend">{}</p>', joined(map(_named(picture, kind), numbers[order].tolist()))
    )


def _named(picture: Picture, kind: str):
    def named(label: int) -> Markup:
        red, green, blue = colour(label)
        swatch = f"background:rgb({red},{green},{blue})"
        name = picture.concepts[label].removeprefix(f"{kind}: ")
        return html('<span><i style="{}"></i>{}</span> ', swatch, name)

    return named


def shown(picture: Picture, patch: int) -> Sequence[str]:
    """What most pixels of a patch are labelled with, of each kind."""
    if picture.labels is None:
        return []
    row, column = divmod(patch, picture.grid.columns)
    side = picture.grid.patch
    cell = picture.labels[row * side : (row + 1) * side, column * side : (column + 1) * side]
    most = [np.bincount(one.ravel() + 1).argmax() - 1 for one in np.moveaxis(cell, -1, 0)]
    return [picture.concepts[label] for label in most if label >= 0]
