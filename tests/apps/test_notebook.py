"""A run in a notebook: tables that are the library's own numbers, and drawings that are the
browser's."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas
import pytest
import torch

import saelab
from apps.browser import PLACES, contexts, facts
from apps.browser.pages import PAGES
from apps.cli import main
from saelab import prompting
from saelab.errors import UsageError
from saelab.features.annotations import Annotations, identity
from saelab.features.reader import FeatureIndex
from saelab.files import write_json
from saelab.runs import read
from tests.apps.pages import opened_page
from tests.conftest import HOOK

TEXT = "alpha beta gamma"


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[saelab.Run]:
    """The session's run, indexed and measured from Python."""
    folder = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("notebook") / "run"))
    opened = saelab.open(folder).build_index(4000, compare=[tiny_run])
    opened.evaluate(500)
    yield opened
    opened.index.close()


def test_it_unpacks_into_what_the_library_opens(run: saelab.Run, tiny_run: Path):
    folder, sae, cache, model = saelab.open(run.folder.path)
    assert folder.path == run.folder.path and sae.n_features == 64
    assert cache.n_tokens() > 0 and model.tokenizer is not None
    assert repr(run).startswith(f"Run('{run.folder.path}': 32 -> 64 -> 32, topk k=4 at {HOOK}")


def test_a_run_without_an_index_or_a_report_says_how_to_make_them(tiny_run: Path):
    bare = saelab.open(tiny_run)
    with pytest.raises(UsageError, match=r"no feature index yet: run.build_index\(\), or `saelab"):
        bare.top()
    with pytest.raises(UsageError, match=r"is not evaluated yet: run.evaluate\(\), or `saelab"):
        _ = bare.report
    with pytest.raises(UsageError, match=r"not evaluated yet: `saelab eval .*tiny`"):
        saelab.show.pareto([tiny_run])


def test_without_its_cache_a_run_still_reads_texts(run: saelab.Run, tmp_path: Path):
    moved = saelab.open(shutil.copytree(run.folder.path, tmp_path / "elsewhere" / "run"))
    assert moved.features(TEXT).equals(run.features(TEXT))
    with pytest.raises(UsageError, match=r"the cache of .* is not at .* any more"):
        _ = moved.cache
    with pytest.raises(UsageError, match="no feature 64"):
        moved.trace(TEXT, 64)
    with pytest.raises(UsageError):
        saelab.open(moved.folder.path, cache=tmp_path).features(TEXT)


def test_a_trace_has_a_value_for_every_token(run: saelab.Run):
    table = run.features(TEXT)
    feature = int(table.feature.mode()[0])
    trace = run.trace(TEXT, feature)
    assert trace.token.tolist() == run.tokens(TEXT)
    fires = table[table.feature == feature].set_index("position").value
    assert trace.value[trace.value != 0].equals(fires.rename_axis(None).rename("value"))


def test_top_lists_what_the_index_lists(run: saelab.Run):
    table = run.top(5, "density")
    with FeatureIndex(run.folder.features) as index:
        rows = index.table("density", limit=5).rows
        hits = index.search("alpha")
    assert table.feature.tolist() == [row.feature for row in rows]
    assert table.density.tolist() == [row.density for row in rows]
    assert table.tokens.tolist() == [row.tokens for row in rows]
    found = run.top(search="alpha")
    assert found.feature.tolist() == [hit.feature for hit in hits][:50]
    assert found.score.tolist() == [hit.score for hit in hits][:50]
    assert run.top(3, "feature").feature.tolist() == [0, 1, 2]
    assert (run.top(density=(0.05, 0.2)).density.between(0.05, 0.2)).all()
    none = run.top(search="nowhere at all")
    assert len(none) == 0 and list(none)[:3] == ["feature", "label", "tokens"]
    with pytest.raises(UsageError, match="no filter 'dense'; there are density, alive"):
        run.top(dense=1)
    with pytest.raises(UsageError, match="no sort 'beauty'"):
        run.top(by="beauty")


def test_more_contexts_come_from_the_cache_and_are_others_than_the_indexs(run: saelab.Run):
    number = int(run.top(1, "density").index[0])
    shown = {(one.context, one.position) for one in run.index.examples(number)}
    more = run.examples(number, n=5)
    assert len(more) == 5 and not shown & set(zip(more.context, more.position, strict=True))
    assert more.value.abs().is_monotonic_decreasing


def test_labels_are_listed_and_found(run: saelab.Run):
    said = Annotations(run.folder.annotations, identity(run.index.summary), 64)
    said.write(7, label="greek letters")
    table = run.top(64, "feature")
    assert table.label[7] == "greek letters" and table.label[8] == ""
    assert run.top(search="greek").feature.tolist() == [7]
    assert "greek letters" in run.feature(7)._repr_html_()


def test_how_often_features_come_again_stands_beside_them(run: saelab.Run):
    columns = {name: [0.5] * 64 for name in ("cosine", "cofiring", "subspace", "start")}
    columns["cofiring"][9] = 1.0
    document = {
        "schema": "saelab/stability/1",
        "sae": run.folder.sae_digest(),
        "others": ["a", "b"],
        "means": {name: {"null": 0.1} for name in ("cosine", "cofiring", "subspace")},
        "features": {"fired": [1] * 64, **columns},
    }
    assert "stability" not in run.top(3)
    write_json(run.folder.stability, document)
    table = run.top(64, "feature")
    assert table.stability[9] == table.fires_alike[9] == 1 and table.writes_alike[9] == 0.5
    assert table.stability[8] == 0.5 and "stability" in run.top(search="alpha")
    write_json(run.folder.stability, {**document, "sae": "0" * 64})
    assert "stability" not in run.top(3)  # of another SAE


class Loads(HTMLParser):
    """What a page would load, and the words it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {value}" for name, value in attrs if name in ("src", "href")]


def test_a_feature_is_drawn_by_the_browsers_own_functions(run: saelab.Run, tmp_path: Path):
    view = run.feature(int(run.top(1, "density").feature[0]))
    page = view._repr_html_()
    examples = run.index.examples(view.number)
    assert contexts.bands(examples, abs(view.about.row.max)) in page
    assert facts.histogram(view.about.histogram) in page
    assert page.startswith("<style>") and "color-scheme: light dark" in page  # of itself, both
    assert ":root" not in page and "body.alone" not in page  # nothing for the rest of a notebook
    reader = Loads()
    reader.feed(page)
    assert reader.loads == [] and "url(" not in page and "@import" not in page
    view.save(tmp_path / "feature.html")
    assert (tmp_path / "feature.html").read_text().startswith("<!DOCTYPE html>")
    assert len(view.examples) == len(examples) and set(view.tokens.columns) > {"text", "total"}
    assert view.neighbours.cosine.is_monotonic_decreasing and len(view.outputs) > 0
    assert repr(view).startswith(f"feature {view.number}: fires on ")
    with pytest.raises(UsageError, match="no feature 64: this SAE has features 0 to 63"):
        run.feature(64)


def test_a_page_that_loads_something_is_caught():
    reader = Loads()
    reader.feed('<link href="https://elsewhere/style.css"><img src="https://elsewhere/1.png">')
    assert len(reader.loads) == 2


def test_the_features_of_a_text_are_the_librarys(run: saelab.Run):
    table = run.features(TEXT)
    rows = prompting.read(prompting.open(run.folder.path), TEXT).table
    for name in ("position", "feature", "value", "effect"):
        truth = getattr(rows, name).numpy()
        assert table[name].to_numpy() == pytest.approx(truth, nan_ok=True)
    assert table.token.tolist() == [run.tokens(TEXT)[at] for at in table.position]
    by_effect = run.features(TEXT, by="effect", n=3)
    assert by_effect.effect.abs().tolist() == sorted(table.effect.abs(), reverse=True)[:3]
    with pytest.raises(UsageError, match="no order 'size'"):
        run.features(TEXT, by="size")


def test_activations_go_in_as_tensor_array_and_frame(run: saelab.Run):
    x_ND = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dense_NF = run.sae.encode(x_ND).to_dense()
    for held in (x_ND, x_ND.numpy(), pandas.DataFrame(x_ND.numpy())):
        table = run.features(held)
        again_NF = torch.zeros(6, 64)
        again_NF[table.row.tolist(), table.feature.tolist()] = torch.tensor(table.value.to_numpy())
        assert torch.equal(again_NF, dense_NF)
    assert not torch.equal(again_NF.roll(1, 0), dense_NF)


def test_an_attribution_adds_up_to_the_logit(run: saelab.Run):
    parts = run.attribute(TEXT)
    ids = prompting.prompt(run.bench, TEXT).tokens
    with torch.no_grad():
        logits_V = run.model(ids[None], return_type="logits")[0, -1]
    assert parts.contribution.sum() == pytest.approx(float(logits_V.max()), abs=1e-3)
    assert parts.attrs["logit"] == pytest.approx(float(logits_V.max()), abs=1e-3)
    assert set(parts.part) == {"feature", "error", "bias", "rest"}
    assert parts.contribution.abs().is_monotonic_decreasing
    left_out = parts[parts.part != "error"].contribution.sum()
    assert left_out != pytest.approx(float(logits_V.max()), abs=1e-3)


def test_steering_is_measured_on_a_frame_of_prompts(run: saelab.Run):
    rows = [{"clean": text, "answer": "b", "wrong": "g"} for text in ("alpha ", "beta a")]
    table = run.steer(pandas.DataFrame(rows), 3, 2.0, "add", n_random=4)
    assert table.index.tolist() == ["metric", "change", "kl"] and table.attrs["left_out"]
    assert table.low["kl"] <= table.value["kl"] <= table.high["kl"] and table.null["kl"] >= 0
    with pytest.raises(UsageError, match="prompt 2 has no answer"):
        run.steer([rows[0], {"clean": "beta a", "wrong": "g"}], 3, 2.0)


def test_steering_stands_beside_original_and_controls(run: saelab.Run):
    table = run.steer(TEXT, 3, 40.0, n=4)
    assert table.run[:4].tolist() == ["original", "steered", "random 1", "random 2"]
    assert re.fullmatch(r"feature \d+", table.run[4]) and table.text.str.startswith(TEXT).all()
    unchanged = run.steer(TEXT, {3: 1.0}, mode="scale", n=4, controls=1)
    assert unchanged.text[0] == unchanged.text[1]
    with pytest.raises(UsageError, match="no feature 99"):
        run.steer(TEXT, 99, 1.0)


def test_a_run_compared_with_itself_finds_every_feature(run: saelab.Run, tiny_run: Path):
    pairs = run.compare(tiny_run)
    assert (pairs.feature == pairs.other).all() and pairs.found.all() and len(pairs) == 64


def test_a_run_of_another_place_is_not_compared(run: saelab.Run, tmp_path: Path):
    x_ND = torch.randn(400, 32, generator=torch.Generator().manual_seed(0))
    own = saelab.train(x_ND, k=2, features=8, tokens=400, out=tmp_path / "own")
    with pytest.raises(UsageError, match="own cannot be compared with run: "):
        run.compare(own)


def test_its_report_is_what_the_verb_writes(run: saelab.Run):
    mine = read(run.folder.report)
    assert main(["eval", str(run.folder.path), "--tokens", "500"]) == 0
    theirs = read(run.folder.report)
    differing = {"command", "sha256"}
    assert {k: v for k, v in mine.items() if k not in differing} == {
        k: v for k, v in theirs.items() if k not in differing
    }
    assert run.report.set_index("metric").value["FVU"] == theirs["fvu"]["value"]
    assert "CE recovered" in run._repr_html_() and "0 to " not in mine["command"]


def test_tokens_are_shaded_by_ones_own_numbers(run: saelab.Run):
    words = ["<b>", " two", "\n", "three"]
    shown = saelab.show.tokens(words, torch.tensor([0.0, 2.0, -1.0, 0.0]))
    page = shown._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page.split("</style>")[1]
    assert page.count('class="act') == 2 and 'class="act neg"' in page
    assert contexts.shade(2.0, 2.0) in page and contexts.shade(-1.0, 2.0) in page
    assert saelab.show.tokens("ab", [1, 2]).line == "ab"
    prompt = prompting.prompt(run.bench, TEXT)
    assert saelab.show.tokens(prompt, [0] * len(prompt.texts)).line.endswith(TEXT)
    with pytest.raises(UsageError, match="4 tokens and 2 values: give one value for each"):
        saelab.show.tokens(words, [1, 2])


def test_a_dashboard_holds_its_features(run: saelab.Run):
    shown = saelab.show.dashboard(run, run.top(2, "density").feature)
    assert shown._repr_html_().count("<article") == 2
    assert saelab.show.dashboard(run.folder.path, [3]).body == run.feature(3).body
    with pytest.raises(UsageError, match="no features to show"):
        saelab.show.dashboard(run, [])


def test_pareto_shows_what_reports_say(run: saelab.Run, tmp_path: Path):
    shown = saelab.show.pareto([run])
    report = read(run.folder.report)
    (dots,) = shown.figure.data
    assert list(dots.x) == [report["l0"]["value"]]
    assert list(dots.y) == [report["ce_recovered"]["value"]]
    high = report["ce_recovered"]["high"] - report["ce_recovered"]["value"]
    assert list(dots.error_y.array) == [pytest.approx(high)]
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.plotly.v1+json", "text/plain"}  # no script in it
    assert list(saelab.show.pareto([run], "kl").figure.data[0].y) == [report["kl"]["value"]]
    with pytest.raises(UsageError, match="the report of run holds no 'beauty'"):
        saelab.show.pareto([run], "beauty")


def test_training_on_ones_own_activations_gives_an_open_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    x_ND = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    run = saelab.train(x_ND, k=2, features=16, tokens=4000, out=tmp_path / "run")
    report = run.evaluate().set_index("metric")
    assert report.value["L0"] <= 2 and "CE recovered" not in report.index
    top = run.build_index().top(3, "density")
    assert len(top) == 3 and "<article" in run.feature(int(top.feature[0]))._repr_html_()
    with pytest.raises(UsageError, match="has no model: its activations were given"):
        run.features("some text")
    assert main(["index", str(run.folder.path)]) == 0
    # Its pages in the browser: what needs a model or a tokenizer is absent, the rest is there.
    monkeypatch.setenv(PLACES, json.dumps([str(run.folder.path)]))
    pages = {name: opened_page(name, run="run", feature="3") for name in PAGES}
    words = "".join(element.proto.body for element in pages["feature"].get("html"))
    assert "Top contexts" in words and "Output tokens" not in words and "silent" not in words
