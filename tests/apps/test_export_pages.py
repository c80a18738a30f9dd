"""What pages show, as files: tables, figures, features, a folder and a report, opened from disk in
a real Chromium whose network is cut."""

import csv
import html
import io
import json
import re
import shutil

import pytest

from apps.browser import charts, saving
from apps.browser.exports import figures, records, static, subject
from apps.browser.html import data, sheet
from apps.cli import main
from saelab.errors import UsageError
from saelab.explaining import store
from saelab.explaining.records import RULES, Explanation
from saelab.features.annotations import Annotations, identity
from saelab.features.reader import FeatureIndex
from saelab.statistics import Estimate
from tests import schemas
from tests import toy_index as toy
from tests.apps.conftest import CHROMIUM

EVIL = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
HOT = Explanation(f'on "{EVIL}"', Estimate(0.9, 0.8, 0.95, 0.5), kind="token", recall=0.8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The toy run with a label, a note and an explanation that would like to be markup."""
    folder = toy.make_run(tmp_path_factory.mktemp("exports") / "toy")
    opened = subject.open(folder)
    here = Annotations(
        opened.folder.annotations, identity(opened.reader.summary), opened.reader.n_features
    )
    here.write(3, label=f"cats {EVIL}", note=f"line one\n{EVIL}", starred=True, add=["mine"])
    here.write(8, label="mats")
    said = {3: HOT, 8: HOT._replace(text="on mats")}
    store.write(opened.folder.explanations, opened.folder.sae_digest(), RULES, said, {})
    return folder


def export(run, *words, out):
    return main(["export", str(run), "--out", str(out), "--to", *words])


# --- tables and figures --------------------------------------------------------------------------


def test_a_table_keeps_all_digits_and_fields_of_fields():
    one = records.table("t", [HOT], feature=3)
    (row,) = csv.DictReader(io.StringIO(records.to_csv(one)))
    assert (row["feature"], float(row["score.low"])) == ("3", 0.8)
    assert row["text"] == HOT.text
    whole = records.to_json(one, run="toy")
    schemas.check(whole, "table")
    assert whole["rows"][0]["score"] == {"value": 0.9, "low": 0.8, "high": 0.95, "null": 0.5}


def test_the_tables_within_a_document_are_its_lists_and_named_objects():
    document = {
        "seed": 1,
        "fvu": {"value": 1.0, "low": None},
        "references": {"zero": {"fvu": 2.0}, "mean": {"fvu": {"value": 1.0}}},
        "scaling": {"laws": [{"over": "k", "sizes": [1, 2]}], "norms": []},
        "sizes": [1, 2],
    }
    found = {one.name: one.rows for one in records.within("report", document)}
    assert found == {
        "report-references": [{"of": "zero", "fvu": 2.0}, {"of": "mean", "fvu": {"value": 1.0}}],
        "report-scaling-laws": [{"over": "k", "sizes": [1, 2]}],
    }
    whole = records.to_csv(records.Table("t", found["report-references"]))
    assert whole == "of,fvu,fvu.value\nzero,2.0,\nmean,,1.0\n"


def test_every_table_of_a_run_is_written_as_the_index_has_it(run, tmp_path):
    assert export(run, "tables", out=tmp_path / "tables") == 0
    known = json.loads((tmp_path / "tables" / "features.json").read_text())
    schemas.check(known, "table")
    with FeatureIndex(run / "features.db") as index:
        assert [row["density"] for row in known["rows"]] == index.densities().tolist()
        near = index.feature(3).neighbours[0]
    with (tmp_path / "tables" / "nearest.csv").open() as file:
        first = next(row for row in csv.DictReader(file) if row["of"] == "3")
    assert (int(first["feature"]), float(first["cosine"])) == (near.feature, near.cosine)
    assert json.loads(first["tokens"]) == near.tokens
    said = json.loads((tmp_path / "tables" / "annotations.json").read_text())["rows"]
    assert [row["feature"] for row in said] == [3, 8]
    names = {path.stem for path in (tmp_path / "tables").iterdir()}
    assert {"examples", "report", "explanations", "histograms", "tokens-by-total"} <= names


def test_figures_are_files_by_themselves_and_pictures_say_what_they_need(
    run, tmp_path, monkeypatch, capsys
):
    assert export(run, "figures", out=tmp_path / "figures") == 0
    written = (tmp_path / "figures" / "densities.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", written)
    assert '"format": "svg"' in written or '"format":"svg"' in written

    def missing(*_, **__):
        raise ValueError('Image export using the "kaleido" engine requires the Kaleido package')

    monkeypatch.setattr("plotly.graph_objects.Figure.write_image", missing)
    assert export(run, "figures", "--picture", "png", out=tmp_path / "png") == 2
    told = capsys.readouterr().err
    assert "training.png cannot be made here: PNG and SVG files need kaleido" in told
    assert "pip install kaleido" in told and not (tmp_path / "png").exists()
    with pytest.raises(UsageError, match=r"figures are written as \.html, \.svg, \.png"):
        figures.save(charts.densities(FeatureIndex(run / "features.db").densities()), run / "a.pdf")


# --- pages ---------------------------------------------------------------------------------------


def test_data_in_a_page_cannot_end_its_script():
    held = str(data([EVIL, "\u2028"], "rows"))
    inside = held[held.index(">") + 1 : held.rindex("<")]
    assert "<" not in inside and json.loads(inside) == [EVIL, "\u2028"]
    with pytest.raises(ValueError, match="end tag"):
        sheet(EVIL)


def test_how_large_a_folder_will_be_is_said_first_and_asked(run, tmp_path, capsys):
    out = tmp_path / "pages"
    assert export(run, "static", out=out) == 2
    told = capsys.readouterr().err
    size = re.search(r"pages: 23 features that fired, about ([\d.]+) ([kM])B: --yes writes", told)
    assert size
    assert not out.exists()
    assert export(run, "static", "--yes", out=out) == 0
    said = float(size[1]) * (1e6 if size[2] == "M" else 1e3)
    real = sum(path.stat().st_size for path in out.rglob("*.html"))
    assert 0.5 * real < said < 1.5 * real
    assert len(list((out / "features").iterdir())) == toy.F - 1  # one is dead


def test_nothing_in_a_folder_asks_for_anything_outside_of_it(run, tmp_path):
    static.write(subject.open(run), [3, 8], tmp_path / "pages")
    for path in (tmp_path / "pages").rglob("*.html"):
        page = html.unescape(path.read_text())
        for address in re.findall(r'(?:src|href)="([^"]*)"', page):
            assert (path.parent / address).is_file(), address
        assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["html"], "--to html writes features by number: name them, --features 7,12"),
        (["html", "--features", "99"], "there is no 99; this SAE has features 0 to 23"),
        (["static", "--features", str(toy.DEAD)], "none of these features"),
    ],
)
def test_what_cannot_be_written_is_told(run, tmp_path, words, why, capsys):
    assert export(run, *words, out=tmp_path / "out") == 2
    assert why in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_run_without_an_index_and_one_without_annotations_are_told(tiny_run, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_run, bare, ignore=shutil.ignore_patterns("features.db", "checkpoints"))
    assert export(bare, "report", out=tmp_path / "out") == 2
    assert f"has no feature index: `saelab index {bare}` makes it" in capsys.readouterr().err
    toy.build(bare / "features.db")
    assert export(bare, "report", out=tmp_path / "out") == 2
    assert "has a label, a note, a star or a list" in capsys.readouterr().err


@pytest.fixture
def offline(browser):
    """A page whose network is cut, which ends without an error."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.alarms, page.asked = [], []
    page.on("pageerror", lambda error: page.alarms.append(str(error)))
    page.on("console", lambda message: page.alarms.append(message.text))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    assert page.alarms == []
    assert all(url.startswith(("file:", "data:")) for url in page.asked), page.asked
    context.close()


needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")


@pytest.mark.browser
@needs_chromium
def test_a_folder_opens_from_disk_searches_and_leads_to_features(run, tmp_path, offline):
    out = tmp_path / "pages"
    static.write(subject.open(run), list(range(toy.F - 1)), out)
    offline.goto(f"file://{out}/index.html")
    assert offline.inner_text("#shown") == f"{toy.F - 1} of {toy.F - 1} features"
    offline.fill(".search", "CATS mine")
    assert offline.inner_text("#shown").startswith("0 of")
    offline.fill(".search", "cats")
    assert offline.inner_text("#shown").startswith("1 of")
    assert EVIL in offline.inner_text("table.features tbody")
    offline.click("table.features tbody a")
    offline.wait_for_selector("h1:has-text('Feature 3')")
    assert offline.locator(".examples .peak").count() > 3
    shade = "element => getComputedStyle(element).backgroundColor"
    assert offline.locator(".act").first.evaluate(shade) != "rgba(0, 0, 0, 0)"
    assert "line one" in offline.inner_text(".note")
    offline.click("a.next")
    offline.wait_for_selector("h1:has-text('Feature 4')")
    offline.click("text=all features")
    offline.wait_for_selector("#shown")
    assert offline.evaluate("window.pwned") is None


@pytest.mark.browser
@needs_chromium
def test_a_feature_and_a_report_are_files_by_themselves(run, tmp_path, offline):
    assert export(run, "report", out=tmp_path / "report") == 0
    assert export(run, "html", "--features", "3", out=tmp_path / "one") == 0
    offline.goto(f"file://{tmp_path}/report/report.html")
    assert offline.locator("article").count() == 2
    offline.click("a[href='#feature-8']")
    assert "mats" in offline.inner_text("#feature-8 h1")
    assert "0.900 0.800 to 0.950" in offline.inner_text("#feature-3 .explained")
    offline.goto(f"file://{tmp_path}/one/feature-3.html")
    assert offline.locator(".examples .peak").count() > 3
    assert offline.evaluate("window.pwned") is None
    assert len(offline.asked) == 2  # the two files


def test_the_table_of_runs_holds_what_their_reports_say(run):
    csv_, json_ = saving.of_runs({"toy": run})
    (row,) = csv.DictReader(io.StringIO(csv_.make()))
    assert (row["name"], float(row["report.fvu.low"])) == ("toy", toy.REPORT["fvu"]["low"])
    whole = json.loads(json_.make())
    schemas.check(whole, "table")
    assert (json_.name, whole["rows"][0]["name"]) == ("runs.json", "toy")


@pytest.mark.browser
@needs_chromium
def test_a_page_saves_what_it_shows(page, served):
    address, run = served
    page.goto(f"{address}/feature?run=toy&feature=3")
    page.wait_for_selector("h1:has-text('Feature 3')")
    page.click(".st-key-saving button")
    form = "[class*='st-key-save_{}'] button"
    with page.expect_download() as saved:
        page.click(form.format("feature-3-html"))
    assert saved.value.suggested_filename == "feature-3.html"
    assert "Feature 3" in saved.value.path().read_text()
    with page.expect_download() as saved:
        page.click(form.format("nearest-csv"))
    with saved.value.path().open() as file:
        rows = [*csv.DictReader(file)]
    with FeatureIndex(run / "features.db") as index:
        assert [int(row["feature"]) for row in rows] == [
            one.feature for one in index.feature(3).neighbours
        ]
