"""HTML and figures: corpus text stays text, shades follow activations, numbers keep their
digits."""

import ast
import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from apps.browser import (
    charts,
    circuit,
    contexts,
    dark_matter,
    draw,
    facts,
    lists,
    supervised,
    tables,
)
from apps.browser.html import html
from apps.browser.listing import Listing
from saelab.features.annotations import Annotation
from saelab.features.reader import FeatureIndex
from saelab.features.records import Bin, Example, Match
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


WANTED = Listing(q='"><script>', only="list:<b>", sort="<i>")
IMAGE = "<img src=x onerror=window.pwned=1>"


def all_html(opened):
    """All HTML that shows corpus text."""
    parts = [draw.tokens(toy.TEXTS)]
    for feature in range(toy.F):
        found = opened.feature(feature)
        parts += [
            facts.header(found, 100, False),
            contexts.bands(opened.examples(feature), found.row.max),
        ]
        parts += [
            facts.strong_tokens(found.by_total, "total"),
            facts.neighbours(found.neighbours, '<run"'),
            facts.cofiring(found.cofiring, '<run"'),
            facts.output_tokens(found.promoted, found.suppressed),
        ]
    for text in ("script", "onerror", "quoted"):
        parts += [lists.passage(passage, '<run"', WANTED) for passage in opened.passages(text)]
    hits = {hit.feature: hit for hit in opened.search("script", ["tokens", "contexts", "outputs"])}
    said = {number: Annotation(number, IMAGE, starred=True) for number in range(toy.F)}
    rows, other = opened.table(limit=100).rows, opened.summary["others"][0]
    parts += [lists.table(rows, '<run"', WANTED, other, hits, said)]
    parts += [lists.pages(1000, 50, 50, '<run"', WANTED, 2000), lists.order(WANTED)]
    parts += [tables.report(toy.REPORT, '<folder"')]
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
ATTRIBUTES = {"class", "style", "title", "href", "data-page", "scope", "role", "aria-label"}
OURS |= {"details", "summary", "mark", "code"}


def test_corpus_text_makes_no_element_and_no_attribute(opened):
    read = Elements(all_html(opened))
    assert read.tags <= OURS
    assert read.attributes <= ATTRIBUTES
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
    limited = {"seconds": 2.5, "heads": {"measured": 3, "of": 12}}
    yield circuit.about({**head, **numbers, "budget": limited})
    held = {name: VALUE for name in ("auc", "precision", "overlap")}
    held |= {"members": 2, "of": 9, "chance": dict.fromkeys(held, (0.1, 0.2))}
    roles = {HOSTILE: {"heads": 2, "among_the_best": 1}}
    paper = {"source": HOSTILE, "heads": held, "edges": None, "roles": roles}
    yield circuit.published({"published": paper})
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
    yield facts.matches([Match(HOSTILE, HOSTILE, 0.5, HOSTILE, 0.5, False, 0.7, 0.2)])
    about = {"sparsify": {"kind": HOSTILE, HOSTILE: HOSTILE}, "n_features": 1, "d_model": 1}
    yield tables.about(HOSTILE, {**about, "origin": {"hook": HOSTILE, "seed": HOSTILE}})
    yield tables.about(HOSTILE, {}) + tables.report({}, HOSTILE)
    others = [{"name": HOSTILE, "share": 0.5, "threshold": 0.5, "median": 0.5, "null": 0.5}]
    counts = {"unseen": 1, "n_features": 2, "n_tokens": 3, "n_contexts": 4, "context": HOSTILE}
    yield tables.indexed({**counts, "others": others})


def test_no_text_of_a_file_makes_an_element():
    for shown in documents():
        read = Elements(shown)
        assert isinstance(shown, Markup) and read.tags <= OURS
        assert read.attributes <= ATTRIBUTES
        assert HOSTILE[:4] not in shown and "img" in shown


def test_a_circuits_limits_and_its_paper_are_shown_and_nothing_where_there_are_none():
    shown = {name: str(made) for name, made in zip(("about", "paper"), documents(), strict=False)}
    assert "in 2.5 s" in shown["about"] and "3 of 12 heads" in shown["about"]
    assert all(part in shown["paper"] for part in ("2 of 9 heads", "0.400", "1 of 2", "[0.100"))
    assert circuit.published({}) == ""


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
    exempt = {"charts.py", "grids.py", "html.py"}  # plotly's templates, twice; the one place
    files = [path for path in (ROOT / "apps/browser").rglob("*.py") if path.name not in exempt]
    made = [code for path in files for code in loose(path.read_text())]
    assert made == ["Markup(''.join(marked))"]
    assert list(loose("f'<b>{name}</b>'")) and list(loose("html('<b>' + name)"))
    assert html("<i>{}</i>", HOSTILE) == f"<i>{draw.text(HOSTILE)}</i>"


def test_blanks_and_line_breaks_are_visible():
    assert draw.text("a b\n\t") == 'a b<i class="ws">↵</i><i class="ws">⇥</i>'
    assert draw.text(" a", spaces=True) == '<i class="ws">·</i>a'


def test_contexts_stand_in_lines_and_long_blanks_in_their_column():
    glyph = '<i class="ws">↵</i>'
    assert draw.text("a\n\n  b\n", lines=True) == f"a{glyph}{glyph}\n  b{glyph}\n"
    assert draw.token("\n" + 40 * " ").endswith('<i class="ws">·</i><i class="ws">×40</i></span>')
    assert "×" not in draw.token("   x")


def test_shades_grow_with_the_activation_and_tell_signs_apart():
    def alpha(activation):
        return float(contexts.shade(activation, 4.0).removeprefix("--a:"))

    assert alpha(1) < alpha(2) < alpha(4) <= 1 and alpha(-2) == alpha(2)
    above = Example(1, -1, 0, 0, 1, 2.0, 1, ["", "a", "b"], [0.0, 2.0, 0.0], "")
    below = above._replace(activations=[0.0, -2.0, 0.0])
    assert 'class="act peak"' in contexts.shaded(above, 1, 3, 2.0)
    assert 'class="act neg peak"' in contexts.shaded(below, 1, 3, 2.0)


def test_an_opened_context_tells_its_values_as_text():
    some = Example(-1, -1, 0, 7, 2, -2.0, 1, ["", "a", "b", "c"], [0.0, 0.5, -2.0, 0.0], "file")
    told = Elements(contexts.example(some, 2.0)).words
    assert told == "−2.00abca 0.500 · b −2.00file · context 7, position 2"
    assert "and 20 more" in contexts.example(
        some._replace(texts=["x"] * 61, activations=[1.0] * 61, position=30), 1.0, None
    )


def test_a_context_is_as_wide_as_asked():
    some = Example(1, -1, 0, 7, 50, 1.0, 1, ["x"] * 100, [1.0] * 100, "file")
    assert contexts.window(some, None) == (1, 100)
    assert contexts.window(some, 30) == (30, 61) and contexts.window(some, 9) == (44, 54)
    assert contexts.window(some._replace(position=2), 9) == (1, 6)


def test_only_firing_tokens_are_shaded_and_the_first_position_is_not_shown(opened):
    example = opened.examples(3)[0]
    whole = contexts.shaded(example, 1, len(example.texts), 1.0)
    assert whole.count('class="act') == sum(
        activation != 0 for activation in example.activations[1:]
    )
    assert whole.count("act peak") == 1
    assert draw.text("<s>") not in contexts.example(example, 1.0)


def test_bars_span_their_bins_and_tell_their_counts():
    drawn = facts.histogram([Bin(-2.0, -1.0, 5), Bin(1.0, 2.0, 20)])
    assert 'style="left:0.00%;width:25.00%;height:25.0%" title="−2.00 to −1.00: 5"' in drawn
    assert 'style="left:75.00%;width:25.00%;height:100.0%" title="1.00 to 2.00: 20"' in drawn
    assert 'aria-label="histogram of 25 activations from −2.00 to 2.00' in drawn
    assert re.findall(r'%">(.*?)</span>', drawn) == ["-2", "-1", "0", "1", "2"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.1, 0.7, ["0.1", "0.2", "0.5"]),
        (1, 20_000, ["1", "10", "100", "1,000", "10,000"]),
        (0.93, 0.97, ["0.93", "0.97"]),
        (2.0, 2.0, ["2"]),
    ],
)
def test_a_logarithmic_axis_reads_in_whole_numbers(low, high, ticks):
    assert charts.log_ticks(low, high)["ticktext"] == ticks


def test_tables_say_what_their_heads_head(opened):
    strongest = facts.strong_tokens(opened.feature(3).by_total, "total")
    assert strongest.count('<th scope="col"') == 4
    assert strongest.count('<th scope="row"') == len(opened.feature(3).by_total)


def test_the_sparsifier_and_the_place_are_said_in_the_fields_words():
    form = {"sparsify": {"kind": "Choice", "k": 32, "over": "token", "signed": False, "beta": 0.0}}
    sizes = {"n_features": 1, "d_model": 1}
    told = tables.about("run", {**form, **sizes, "origin": {"hook": "a", "target": "a"}})
    assert "TopK k=32" in told and "transcoder" not in told
    trained = {"hook": "a", "target": "b", "sparsify": "batchtopk", "k": 8}
    told = tables.about("run", {**form, **sizes, "origin": trained})
    assert "BatchTopK k=8" in told and "<dd>transcoder</dd>" in told


def test_numbers_keep_their_digits():
    shown = [
        draw.number(value) for value in (0, 0.1, -1.234, 12.0, 1234.0, 123456.0, 0.00001, None)
    ]
    assert shown == ["0.00", "0.100", "−1.23", "12.0", "1,234", "123,456", "1.0e−05", "–"]
    assert [draw.percent(value) for value in (0, 0.00123, 0.5)] == ["0.0%", "0.12%", "50.0%"]
