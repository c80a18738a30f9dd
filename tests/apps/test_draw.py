"""HTML and figures: corpus text stays text, shades follow activations, numbers keep their
digits."""

import ast
import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from apps.browser import charts, circuit, dark_matter, draw, supervised, tables
from apps.browser.html import html
from saelab.features.reader import FeatureIndex
from saelab.features.records import Match
from tests import toy_index as toy
from tests.conftest import ROOT


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
    monkeypatch.setattr(draw, "escape", Markup)
    read = Elements(all_html(opened))
    assert {"script", "img"} & read.tags


HOSTILE = "<img src=//stranger.invalid onerror=alert(1)>"
VALUE = {"value": 0.5, "low": 0.4, "high": 0.6, "null": 0.1}


def documents():
    """HTML of documents in which every text is hostile, and numbers too where they need not be
    computed with."""
    head = {"task": HOSTILE, "method": HOSTILE, "model": HOSTILE, "metric": HOSTILE, "schema": "/"}
    numbers = dict.fromkeys(["metric_clean", "metric_corrupted", "metric_empty", "cpr", "cmd"], 0.5)
    level = {"level": 0.5, "members": [1], "auc": 0.5, "average_precision": 0.5}
    truth = {"kind": HOSTILE, "levels": [level]}
    yield circuit.about({**head, **numbers})
    yield circuit.menu([HOSTILE, "b"], "b") + circuit.menu([HOSTILE], HOSTILE)
    yield circuit.agreement({"truth": truth, "auc_layer_index": 0.5, "auc_random": 0.5})
    yield circuit.edges([{"source": HOSTILE, "target": HOSTILE, "score": 0.5}])
    node = {"hook": HOSTILE, "name": HOSTILE, "feature": HOSTILE, "effect": 0.5}
    yield circuit.nodes({"nodes": [node], "runs": {HOSTILE: HOSTILE}}, {HOSTILE: HOSTILE}, 9)
    edit = {"dictionary": HOSTILE, "changes": HOSTILE, "edit_agreement": VALUE}
    scores = {key: {"sae": VALUE, HOSTILE: VALUE} for key in supervised.SCORES}
    sizes = {"prompts": {"fit": 1, "test": 2}, "metric_mean": 0.1, "edits": [edit]}
    yield supervised.section({**head, **numbers, **sizes, **scores})
    keys = [key for part in dark_matter.PARTS.values() for key in part if key]
    run = dict.fromkeys([*keys, "linear_r2", "norm_r2"], VALUE)
    run |= {"tokens": 1, "tokens_fitted": 2, "controls": {HOSTILE: run}}
    yield dark_matter.section({"runs": [run]})
    yield draw.matches([Match(HOSTILE, HOSTILE, 0.5, HOSTILE, 0.5, False, 0.7, 0.2)])
    about = {"sparsify": {"kind": HOSTILE, HOSTILE: HOSTILE}, "n_features": 1, "d_model": 1}
    yield tables.about(HOSTILE, {**about, "origin": {"hook": HOSTILE, "seed": HOSTILE}})
    yield tables.about(HOSTILE, {}) + tables.report({}, HOSTILE)
    others = [{"name": HOSTILE, "share": 0.5, "threshold": 0.5, "median": 0.5, "null": 0.5}]
    counts = {"dead": 1, "n_features": 2, "n_tokens": 3, "n_contexts": 4, "context": HOSTILE}
    yield tables.indexed({**counts, "others": others})


def test_no_text_of_a_file_makes_an_element():
    for shown in documents():
        read = Elements(shown)
        assert isinstance(shown, Markup) and read.tags <= OURS
        assert read.attributes <= {"class", "style", "title", "href", "data-page"}
        assert HOSTILE[:4] not in shown and "img" in shown


def loose(source):
    """What in a file makes HTML of something else than a literal template."""
    for node in ast.walk(ast.parse(source)):
        texts = [part for part in ast.walk(node) if isinstance(part, ast.Constant)]
        if isinstance(node, ast.JoinedStr) and any("<" in str(part.value) for part in texts):
            yield ast.unparse(node)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in ("Markup", "html") and not isinstance(node.args[0], ast.Constant):
            yield ast.unparse(node)


def test_html_is_made_of_literals_alone():
    exempt = {"charts.py", "html.py"}  # plotly's templates; the one place
    files = [path for path in (ROOT / "apps/browser").rglob("*.py") if path.name not in exempt]
    made = [code for path in files for code in loose(path.read_text())]
    assert made == ["Markup(str(escape(value)).translate(ALL_MARKS if spaces else MARKS))"]
    assert list(loose("f'<b>{name}</b>'")) and list(loose("html('<b>' + name)"))
    assert html("<i>{}</i>", HOSTILE) == f"<i>{draw.text(HOSTILE)}</i>"


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
