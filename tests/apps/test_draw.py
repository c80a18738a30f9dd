"""HTML and figures: corpus text stays text, shades follow activations, numbers keep their
digits."""

import re
from html.parser import HTMLParser

import pytest

from apps.browser import charts, draw, tables
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("draw")
    toy.build(folder / "features.db")
    with FeatureIndex(folder / "features.db") as opened:
        yield opened


class Elements(HTMLParser):
    """Every tag and attribute of a piece of HTML, as a browser would read it."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.words = set(), set(), ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data):
        self.words += data


def all_html(opened):
    """All HTML that shows corpus text."""
    parts = [draw.tokens(toy.TEXTS)]
    for feature in range(toy.F):
        found = opened.feature(feature)
        parts += [
            draw.header(found, 100, False),
            draw.bands(opened.examples(feature), found.row.max),
        ]
        parts += [
            draw.strong_tokens(found.by_total, "total"),
            draw.neighbours(found.neighbours, '<run"'),
        ]
    for text in ("script", "onerror", "quoted"):
        parts += [tables.passage(passage, '<run"') for passage in opened.passages(text)]
    state = {"sort": "density", "descending": True, "q": '"><script>'}
    parts += [
        tables.table(opened.table(limit=100).rows, '<run"', state, opened.summary["others"][0])
    ]
    parts += [tables.pages(1000, 50, 50, '<run"', state), tables.report(toy.REPORT, '<folder"')]
    return "".join(parts)


OURS = {
    "div",
    "span",
    "i",
    "b",
    "p",
    "a",
    "h1",
    "h2",
    "small",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "dl",
    "dt",
    "dd",
}
OURS |= {"details", "summary", "mark", "code"}


def test_corpus_text_makes_no_element_and_no_attribute(opened):
    read = Elements(all_html(opened))
    assert read.tags <= OURS
    assert read.attributes <= {"class", "style", "title", "href", "data-page"}
    assert "<script>window.pwned=1</script>" in read.words
    assert "<img·src=x·onerror=window.pwned=1>" in read.words


def test_the_escape_checker_catches_unescaped_text(opened, monkeypatch):
    monkeypatch.setattr(draw, "MARKS", {})
    read = Elements(all_html(opened))
    assert {"script", "img"} & read.tags


def test_blanks_and_line_breaks_are_visible():
    assert draw.text("a b\n\t") == 'a b<i class="ws">↵</i><i class="ws">⇥</i>'
    assert draw.text(" a", spaces=True) == '<i class="ws">·</i>a'


def test_shades_grow_with_the_activation_and_tell_signs_apart():
    def alpha(activation):
        red, green, blue, alpha = re.search(
            r"rgba\((\d+), (\d+), (\d+), ([\d.]+)\)", draw.shade(activation, 4.0)
        ).groups()
        return (red, green, blue), float(alpha)

    assert alpha(1)[1] < alpha(2)[1] < alpha(4)[1] <= 1
    assert alpha(-2)[1] == alpha(2)[1]
    assert alpha(-2)[0] != alpha(2)[0]


def test_only_firing_tokens_are_shaded_and_the_first_position_is_not_shown(opened):
    example = opened.examples(3)[0]
    whole = draw.shaded(example, 1, len(example.texts), 1.0)
    assert whole.count('class="act') == sum(
        activation != 0 for activation in example.activations[1:]
    )
    assert whole.count("act peak") == 1
    assert draw.text("<s>") not in draw.example(example, 1.0)


def test_chart_labels_are_text(opened):
    found = opened.feature(3)
    hostile = [found.promoted[0]._replace(text="<a href=x>y</a>")] * 3
    drawn = charts.logits(hostile, hostile).to_json()
    assert "<a" not in drawn and "\\u003ca" not in drawn
    assert charts.histogram(found.histogram).data[0].y == tuple(
        part.fired for part in found.histogram
    )


def test_numbers_keep_their_digits():
    shown = [
        draw.number(value) for value in (0, 0.1, -1.234, 12.0, 1234.0, 123456.0, 0.00001, None)
    ]
    assert shown == ["0.00", "0.100", "−1.23", "12.0", "1,234", "123,456", "1.0e−05", "–"]
    assert [draw.percent(value) for value in (0, 0.00123, 0.5)] == ["0.0%", "0.12%", "50.0%"]
