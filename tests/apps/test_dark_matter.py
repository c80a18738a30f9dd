"""`saelab dark-matter`: what it prints and writes, runs compared, error caches that train, and what
it refuses."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import torch

import training
from apps.browser import PLACES
from apps.browser import dark_matter as section
from apps.cli import main
from saelab import SAE, Choice, models
from saelab.activations import Cache
from saelab.analysis.dark_matter import decomposition as dark
from saelab.analysis.dark_matter import reduce
from saelab.analysis.dark_matter.error_cache import write_errors
from saelab.analysis.dark_matter.report import analyse
from saelab.evaluation.report import evaluate
from saelab.files import write_json
from saelab.origin import Origin
from tests import toy_index
from tests.apps.pages import opened_page
from tests.conftest import HOOK, make_cache, make_model
from tests.schemas import check


@pytest.fixture(scope="module")
def runs(tiny_run: Path, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The session's run and three of other widths."""
    root = tmp_path_factory.mktemp("dark")
    base = training.Config(
        cache=str(tiny_cache), hook=HOOK, k=4, tokens=10_000, batch=250, lr=0.003
    )
    configs = [
        training.Config(**{**vars(base), "out": str(root / f"f{n}"), "features": n})
        for n in (16, 32, 128)
    ]
    return [*training.train(configs), Path(shutil.copytree(tiny_run, root / "f64"))]


@pytest.fixture(scope="module")
def document(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the verb prints for all of them."""
    import contextlib
    import io

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["dark-matter", *map(str, runs), "--held-out", "1000", "--json"]) == 0
    return json.loads(printed.getvalue())


def test_the_document_follows_its_schema_and_lies_in_every_run(document: dict, runs: list[Path]):
    check(document, "dark-matter")
    with pytest.raises(jsonschema.ValidationError):
        check({**document, "runs": [{**document["runs"][0], "fvu": 0.5}]}, "dark-matter")
    for entry, run in zip(document["runs"], runs, strict=True):
        written = json.loads((run / "dark-matter.json").read_text())
        check(written, "dark-matter")
        assert written["runs"] == [entry] and written["scaling"] == document["scaling"]


def test_the_streamed_scores_equal_a_decomposition_in_memory(
    document: dict, runs: list[Path], tiny_cache: Path
):
    entry, sae, cache = document["runs"][3], SAE.load(runs[3]), Cache(tiny_cache)
    n = entry["tokens_fitted"]
    assert n == cache.n_tokens() // min(8192, cache.n_tokens()) * min(8192, cache.n_tokens())
    x = next(cache.batches(HOOK, n))
    y = torch.cat([c.acts[:, 1:].flatten(0, 1) for c in cache.contexts(HOOK, "held_out")])[
        : entry["tokens"]
    ]
    found = dark.decompose(y, reduce.reconstruct(sae, y), dark.fit(x, reduce.reconstruct(sae, x)))
    for name, value in {
        "linear_r2": found.r2,
        "norm_r2": found.norm_r2,
        "fvu_nonlinear": found.fvu_nonlinear,
    }.items():
        assert entry[name]["value"] == pytest.approx(value, abs=1e-4), name
        assert entry[name]["low"] <= entry[name]["value"] <= entry[name]["high"]
    assert entry["linear_r2_null"] == found.r2_null


def test_controls_take_their_known_values(document: dict):
    for entry in document["runs"]:
        controls = {
            name: control["linear_r2"]["value"] for name, control in entry["controls"].items()
        }
        assert controls["dead"] == pytest.approx(1, abs=1e-6) and controls[
            "shrunk"
        ] == pytest.approx(1, abs=1e-6)
        assert abs(controls["permuted"] - entry["linear_r2_null"]) < 0.05
        assert entry["linear_r2_null"] < 0 < entry["linear_r2"]["value"] < 1


def test_adding_the_whole_error_back_is_the_clean_model(
    runs: list[Path], tiny_cache: Path, tiny_model: Path
):
    class Shrunk(SAE):
        def forward(self, x, grad=None):
            return 0.3 * x

    sae = Shrunk(32, 8, Choice(2))
    sae.origin = SAE.load(runs[0]).origin
    (entry,) = analyse({"shrunk": sae}, Cache(tiny_cache), models.load(tiny_model), n_held_out=600)[
        "runs"
    ]
    assert entry["linear_r2"]["value"] == pytest.approx(1, abs=1e-5)
    assert entry["ce_share_linear"]["value"] == pytest.approx(1, abs=1e-3)
    assert entry["ce_share_nonlinear"]["value"] == pytest.approx(0, abs=1e-3)
    assert abs(entry["ce_share_linear"]["null"] - 1) > 0.1  # noise as long is another thing


def test_runs_are_compared_over_their_widths(document: dict):
    (law,) = document["scaling"]["laws"]
    assert law["sizes"] == [16, 32, 64, 128] and law["k"] == 4
    assert law["fvu"][0] > law["fvu"][-1] > law["floor"]["value"] - 1e-9
    pairs = {(pair["from"], pair["to"]) for pair in document["scaling"]["norms"]}
    assert len(pairs) == 12


def test_the_table_and_the_browser_show_the_numbers(document: dict, runs: list[Path], capsys):
    assert main(["dark-matter", str(runs[0]), "--tokens", "4k", "--held-out", "500"]) == 0
    table = capsys.readouterr().out
    entry = json.loads((runs[0] / "dark-matter.json").read_text())["runs"][0]
    assert f"{entry['linear_r2']['value']:.4f}" in table and "permuted" in table
    shown = section.section({"runs": [entry]})
    assert "Dark matter" in shown and "random init" in shown and "nonlinear" in shown
    write_json(runs[0] / "dark-matter.json", {**document, "runs": document["runs"][:1]})


def test_the_overview_shows_the_section_of_an_analysed_run(
    document: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    toy_index.make_run(tmp_path / "toy")
    monkeypatch.setenv(PLACES, json.dumps([str(tmp_path)]))
    without = opened_page()
    write_json(tmp_path / "toy" / "dark-matter.json", {**document, "runs": document["runs"][:1]})
    shown = opened_page()
    pages = [
        "".join(e.proto.body for e in app.main.children.values() if e.type == "html")
        for app in (without, shown)
    ]
    assert ["Dark matter" in page for page in pages] == [False, True]


def test_an_error_cache_trains_and_its_parts_sum_up(
    runs: list[Path], tiny_cache: Path, tmp_path: Path, capsys
):
    out = tmp_path / "errors"
    shutil.copytree(runs[3], tmp_path / "run")
    assert (
        main(["dark-matter", str(tmp_path / "run"), "--held-out", "500", "--errors", str(out)]) == 0
    )
    printed = capsys.readouterr().out
    errors = Cache(out)
    errors.verify()
    whole, linear, nonlinear = errors.hooks
    assert f"next: saelab train --cache {out} --hook {nonlinear}" in printed
    parts = [next(errors.contexts(hook, "held_out")).acts for hook in (whole, linear, nonlinear)]
    torch.testing.assert_close(parts[0], parts[1] + parts[2], rtol=0, atol=1e-5)
    x = next(Cache(tiny_cache).contexts(HOOK, "held_out")).acts
    expected = x.flatten(0, 1) - reduce.reconstruct(SAE.load(runs[3]), x.flatten(0, 1))
    torch.testing.assert_close(parts[0].flatten(0, 1), expected, rtol=0, atol=1e-5)
    rows = torch.cat([c.acts[:, 1:].flatten(0, 1) for c in errors.contexts(nonlinear)]).double()
    moments = errors.moments(nonlinear)
    assert moments.n == len(rows) == errors.n_tokens()
    torch.testing.assert_close(moments.second, rows.T @ rows, rtol=1e-5, atol=1e-5)
    options = ["--features", "16", "--k", "2", "--tokens", "5000", "--batch", "250"]
    assert (
        main(
            [
                "train",
                "--cache",
                str(out),
                "--hook",
                nonlinear,
                "--out",
                str(tmp_path / "trained"),
                *options,
            ]
        )
        == 0
    )
    again = ["dark-matter", str(tmp_path / "run"), "--held-out", "500", "--errors"]
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main([*again, str(out)]) == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main([*again, str(out), "--seed", "1"]) == 2
    assert "holds a cache of other settings" in capsys.readouterr().err
    assert main([*again, str(tmp_path / "run")]) == 2
    assert "exists and is no cache" in capsys.readouterr().err


def test_an_sae_of_the_error_is_evaluated_with_the_rest_of_the_activation_in_place(
    runs: list[Path], tiny_cache: Path, tiny_model: Path, tmp_path: Path
):
    """Without its error an activation is the first SAE's reconstruction, so that zeroing the one is
    splicing the other."""
    cache, model, base = Cache(tiny_cache), models.load(tiny_model), SAE.load(runs[3])
    errors = Cache(write_errors(base, cache, tmp_path / "errors"))
    whole, _, nonlinear = errors.hooks
    sae = SAE(32, 16, Choice(2), seed=3)
    found = {}
    for hook in (whole, nonlinear):
        sae.origin = Origin(hook)
        found[hook] = evaluate(sae, errors, model, n_tokens=2000)
        assert found[hook]["references"]["identity"]["ce_recovered"]["value"] == pytest.approx(
            1, abs=1e-4
        )
    spliced = evaluate(base, cache, model, n_tokens=2000)["ce_spliced"]
    assert found[whole]["ce_ablated"] == pytest.approx(spliced, abs=1e-5)
    assert abs(found[nonlinear]["ce_ablated"] - spliced) > 1e-4
    sae.origin = Origin(whole, nonlinear)
    with pytest.raises(ValueError, match="is a part of an activation: an SAE from it to"):
        evaluate(sae, errors, model, n_tokens=2000)
    sae.origin = Origin(nonlinear)
    errors.manifest["hooks"][nonlinear].pop("part_of")
    with pytest.raises(ValueError, match="has no hook"):
        evaluate(sae, errors, model, n_tokens=2000)


def test_reductions_lower_what_they_can_and_not_what_they_cannot(
    runs: list[Path], tiny_cache: Path
):
    sae, cache = SAE.load(runs[3]), Cache(tiny_cache)
    x = next(cache.batches(HOOK, 4000))
    chunk = next(cache.contexts(HOOK, "held_out"))
    y, owners = chunk.acts[:, 1:].flatten(0, 1), chunk.documents[:, 1:].flatten()
    pursued = reduce.by_pursuit(sae, x, y, "orthogonal")
    value, low, high, _ = pursued.share(owners)
    assert low <= value <= high and value == pytest.approx(
        1 - float(pursued.after.sum() / pursued.before.sum()), rel=1e-5
    )
    told = reduce.by_earlier(sae, (x, x.relu()), (y, y.relu()))
    noise = [torch.randn(len(t), 32, generator=torch.Generator().manual_seed(0)) for t in (x, y)]
    nothing = reduce.by_earlier(sae, (x, noise[0]), (y, noise[1]))
    assert told.share(owners)[0] > 0.01 > nothing.share(owners)[0] > -0.05


def test_a_ridge_fits_on_fewer_tokens_than_regressors_and_has_no_null(
    tiny_cache: Path, tiny_model: Path, runs: list[Path]
):
    sae, cache, model = SAE.load(runs[0]), Cache(tiny_cache), models.load(tiny_model)
    (few,) = analyse({"few": sae}, cache, model, n_tokens=20, n_held_out=600, ridge=0.1)["runs"]
    assert few["linear_r2_null"] is None and few["controls"]["dead"]["linear_r2"]["value"] < 0.99
    (held,) = analyse({"held": sae}, cache, model, n_tokens=2000, n_held_out=600, ridge=1e6)["runs"]
    assert abs(held["linear_r2"]["value"]) < 0.01  # such a ridge allows no weight at all


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["{run}", "--ridge", "-1"], "ridge=-1.0: give a number of at least 0"),
        ([], "no run named: saelab dark-matter RUN"),
        (
            ["{run}", "--tokens", "20"],
            "20 tokens are too few to fit 32 regressors: at least 34 are needed",
        ),
        (["{run}", "--cache", "{wide}"], "was made by"),
        (
            ["{run}", "{other}", "--errors", "somewhere"],
            "--errors writes the error of one run, 2 are named",
        ),
        (["missing"], "missing holds no SAE: there is no such folder"),
    ],
)
def test_what_cannot_be_analysed_is_refused(
    words: list[str], complaint: str, runs: list[Path], tiny_corpus, tmp_path, capsys
):
    places = {"run": runs[0], "other": runs[1], "wide": tmp_path / "wide"}
    if "{wide}" in words:
        make_cache(
            make_model(tmp_path / "model", seed=1), tiny_corpus, tmp_path / "wide", n_tokens=4000
        )
    assert main(["dark-matter", *(word.format(**places) for word in words)]) == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_an_sae_of_another_width_or_kind_is_refused(
    runs: list[Path], tiny_cache: Path, tiny_model: Path
):
    model, origin = models.load(tiny_model), SAE.load(runs[0]).origin
    for sae, complaint in (
        (
            SAE(16, 64, Choice(4)),
            r"narrow has d_model=16, blocks\.0\.hook_resid_post of the cache 32",
        ),
        (SAE(32, 64, Choice(4), transcoder=True), "narrow is a transcoder"),
    ):
        sae.origin = origin
        with pytest.raises(ValueError, match=complaint):
            analyse({"narrow": sae}, Cache(tiny_cache), model)
