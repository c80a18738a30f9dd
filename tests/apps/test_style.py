"""The style sheet's colours: every text stands out from its ground by 4.5:1 in both themes, by
WCAG's formula."""

import re

import pytest

from apps.browser import server
from tests.conftest import ROOT

CSS = (ROOT / "apps/browser/style.css").read_text()
VARIABLE = re.compile(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);")
COLOURS = {name: both for name, *both in VARIABLE.findall(CSS)}
THEMES = ("light", "dark")
ENOUGH = 4.5
# Texts of these colours may stand on any of these grounds; the others have a ground of their own.
TEXTS, GROUNDS = ("ink", "soft", "link"), ("page", "surface", "code")
OWN = [("yes", "yes-ground"), ("ink", "no-ground"), ("ink", "found-ground"), ("yes", "page")]
SHADES = ("positive", "negative")


def channels(colour: str) -> list[float]:
    """Red, green and blue from 0 to 1."""
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def luminance(channels: list[float]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(text: list[float], ground: list[float]) -> float:
    """Contrast ratio (WCAG 2.2), 1 to 21."""
    low, high = sorted((luminance(text), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


def mixed(shade: list[float], ground: list[float], alpha: float) -> list[float]:
    """A shade over a ground."""
    return [alpha * s + (1 - alpha) * g for s, g in zip(shade, ground, strict=True)]


def weak(colours: dict[str, list[str]]) -> list[str]:
    """The pairs of text and ground, by theme, of too little contrast."""
    every = [(text, ground) for text in TEXTS for ground in GROUNDS] + OWN
    found = []
    for at, theme in enumerate(THEMES):
        rgb = {name: channels(both[at]) for name, both in colours.items()}
        pairs = {f"{text} on {ground}": (rgb[text], rgb[ground]) for text, ground in every}
        for shade in SHADES:
            for ground in ("page", "surface"):
                for alpha in (0.12, 0.3, 0.5, 0.7, 0.9):
                    below = mixed(rgb[shade], rgb[ground], alpha)
                    pairs[f"ink on {alpha} {shade} on {ground}"] = (rgb["ink"], below)
        found += [
            f"{name} ({theme}): {contrast(*pair):.2f}"
            for name, pair in pairs.items()
            if contrast(*pair) < ENOUGH
        ]
    return found


def test_every_text_stands_out():
    assert weak(COLOURS) == []


@pytest.mark.parametrize(("name", "colour"), [("soft", "#a8b1bb"), ("soft", "#8a94a0")])
def test_a_grey_of_two_or_three_to_one_is_caught(name, colour):
    assert any(name in pair for pair in weak({**COLOURS, name: [colour, COLOURS[name][1]]}))


def test_contrast_is_wcags():
    assert contrast([0, 0, 0], [1, 1, 1]) == pytest.approx(21)
    assert contrast(channels("#777777"), [1, 1, 1]) == pytest.approx(4.48, abs=0.01)


def test_no_colour_stands_outside_the_table():
    rest = VARIABLE.sub("", CSS)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;, )])|rgba?\(", rest)
    used = set(re.findall(r"(?<!-)color: var\(--([\w-]+)\)", rest))
    assert used <= {*TEXTS, "yes"}, "a text of a colour that no ground is checked for"
    grounds = set(re.findall(r"background(?:-color)?: var\(--([\w-]+)\)", rest))
    bars = {"positive", "negative"}
    assert grounds <= {*GROUNDS, *(ground for _, ground in OWN), *bars}


def test_streamlits_theme_has_the_same_colours():
    options = server.OPTIONS
    for at, theme in enumerate(THEMES):
        assert options[f"theme.{theme}.backgroundColor"] == COLOURS["page"][at]
        assert options[f"theme.{theme}.secondaryBackgroundColor"] == COLOURS["surface"][at]
        assert options[f"theme.{theme}.textColor"] == COLOURS["ink"][at]
        button = channels(options[f"theme.{theme}.primaryColor"])
        assert contrast([1, 1, 1], button) >= ENOUGH, "what Streamlit writes on it is white"
        assert contrast(button, channels(COLOURS["page"][at])) >= 3
        assert options[f"theme.{theme}.primaryColor"] == COLOURS["accent"][at]
    assert "theme.base" not in options, "the browser chooses between light and dark"
