"""`saelab eval` with controls, with probes, and of several runs at once."""

import dataclasses
import json
import shutil
from pathlib import Path

import jsonschema
import pytest

import saelab
import training
from apps.browser import tables
from apps.cli import eval_concepts, eval_probes, eval_suite, main
from saelab import SAE
from saelab.analysis.comparison.starts import from_start
from saelab.evaluation import meta, text_probes
from saelab.evaluation.labels import KINDS
from tests.conftest import HOOK
from tests.evaluation.test_probing import make_python_cache
from tests.schemas import check


def last_line(capsys: pytest.CaptureFixture) -> str:
    """The last line on standard error."""
    return capsys.readouterr().err.strip().splitlines()[-1]


def trained(cache: Path, out: Path, **changes) -> Path:
    """A short run."""
    options = {"features": 64, "k": 4, "tokens": 20_000, "batch": 256, "lr": 0.003, **changes}
    return training.train(training.Config(cache=str(cache), out=str(out), hook=HOOK, **options))


@pytest.fixture(scope="module")
def runs(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three seeds and one run of another k."""
    folder = tmp_path_factory.mktemp("seeds")
    return [
        *(trained(tiny_cache, folder / f"seed{seed}", seed=seed) for seed in range(3)),
        trained(tiny_cache, folder / "k8", k=8),
    ]


def test_controls_stand_beside_the_same_report(runs: list[Path], capsys):
    assert main(["eval", str(runs[0]), "--tokens", "1000", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main(["eval", str(runs[0]), "--tokens", "1000", "--controls", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "report")
    assert result == json.loads((runs[0] / "report.json").read_text())
    assert set(result) - set(plain) == {"controls", "separation"} and "probing" not in plain
    assert all(result[name] == plain[name] for name in plain if name not in ("command", "sha256"))
    assert len(result["controls"]) == 5
    for name, row in result["controls"].items():
        worse = 1.1 if name == "frozen_decoder" else 1.5
        assert row["fvu"]["value"] > worse * result["fvu"]["value"]
        assert row["l0"]["value"] == result["l0"]["value"] == 4
    rows = {(row["metric"], row["control"]): row["verdict"] for row in result["separation"]}
    assert rows["fvu", "random_init"] == rows["fvu", "permuted_decoder"] == "better"
    assert ("l0", "random_init") not in rows and ("dense_fraction", "shuffled_code") not in rows
    twin = SAE.load(runs[0] / "controls" / "frozen-decoder")
    assert (runs[0] / "controls" / "frozen-decoder" / "config.yaml").is_file()
    cosine_F = from_start(twin)
    assert cosine_F.min() > 1 - 1e-5 and from_start(SAE.load(runs[0])).min() < 0.99
    assert main(["eval", str(runs[0]), "--tokens", "1000", "--controls"]) == 0
    printed = capsys.readouterr().out
    assert (
        f"{result['controls']['permuted_decoder']['fvu']['value']:.4f}" in printed
        and "random init" in printed
    )


def test_several_runs_print_a_row_each_and_a_mean_over_those_that_differ_by_seed(
    runs: list[Path], capsys
):
    assert main(["eval", *map(str, runs), "--tokens", "600", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "reports")
    assert [row["run"] for row in result["runs"]] == [str(run) for run in runs]
    (group,) = result["seeds"]
    assert group["runs"] == [str(run) for run in runs[:3]]
    values = [row["fvu"]["value"] for row in result["runs"][:3]]
    assert group["fvu"]["value"] == pytest.approx(sum(values) / 3) and group["fvu"]["n"] == 3
    assert group["fvu"]["low"] < min(values) < max(values) < group["fvu"]["high"]
    assert 0 <= group["stability"]["null_found"] <= group["stability"]["found"] <= 1
    with pytest.raises(jsonschema.ValidationError):
        check({**result, "runs": result["runs"][:1]}, "reports")
    for run, row in zip(runs, result["runs"], strict=True):
        assert json.loads((run / "report.json").read_text())["fvu"] == row["fvu"]
    assert main(["eval", str(runs[0]), str(runs[1]), "--tokens", "600"]) == 0
    printed = capsys.readouterr().out
    assert (
        "mean of 2 seeds" in printed and "95% interval" not in printed and "random rows" in printed
    )


def test_a_copy_of_a_run_is_no_second_seed(runs: list[Path], tmp_path: Path, capsys):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    assert main(["eval", str(runs[0]), str(copy), "--tokens", "600", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == []


def test_probes_of_token_kinds(tiny_model: Path, tmp_path: Path, capsys):
    run = trained(
        make_python_cache(tiny_model, tmp_path), tmp_path / "run", tokens=5000, sparsify="batchtopk"
    )
    assert main(["eval", str(run), "--tokens", "600", "--probe", "--concepts", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "report")
    assert "controls" not in result
    aligned = result["concepts"]
    assert [*aligned] == ["sae", "random_init", "neurons"]
    names = [one["name"] for one in aligned["sae"]["concepts"]]
    assert "number" in names and set(names) <= set(KINDS)
    assert aligned["sae"]["precision"]["low"] <= aligned["sae"]["precision"]["value"]
    told = eval_concepts.text(aligned)
    assert f"{aligned['neurons']['purity']['value']:.4f}" in told and "shuffled labels" in told
    with pytest.raises(jsonschema.ValidationError):
        check({**result, "concepts": {"sae": aligned["sae"]}}, "report")
    rows = {(row["label"], row["dictionary"], row["k"]): row for row in result["probing"]}
    assert {name for _, name, _ in rows} == {"sae", "random_init", "neurons", "dense"}
    assert rows["number", "dense", None]["value"] > rows["number", "dense", None]["null"] + 0.2
    assert main(["eval", str(run), "--tokens", "600", "--probe"]) == 0
    printed = capsys.readouterr().out
    assert "sparse probes" in printed and f"{rows['name', 'sae', 5]['value']:.2f}" in printed


def test_ones_own_labels_are_probed_and_kept(
    runs: list[Path], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(text_probes, "CS", (0.1, 1.0))  # fewer strengths take less time
    monkeypatch.setattr(text_probes, "KS", (5,))
    file = tmp_path / "spans.csv"
    rows = [f"{word} {n},{word},0,{len(word)}" for n in range(60) for word in ("alpha", "beta")]
    file.write_text("\n".join(["text,label,start,end", *rows]))
    line = ["eval", str(runs[3]), "--tokens", "300", "--labels", str(file)]
    assert main([*line, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "report")
    assert result == json.loads((runs[3] / "report.json").read_text())
    rows = result["labelled"]["rows"]
    assert {row["level"] for row in rows} == {"last", "pooled", "token"}
    with pytest.raises(jsonschema.ValidationError):
        check({**result, "labelled": {**result["labelled"], "rows": []}}, "report")
    printed = eval_probes.text(result["labelled"])
    dense = next(row for row in rows if row["dictionary"] == "dense")
    assert f"{dense['accuracy']['value']:.2f}" in printed and "spans last beta" in printed
    page = tables.report(result, "run")
    assert "Own labels" in page and "each token" in page
    frame = saelab.open(runs[3]).probes
    assert len(frame) == len(rows) and set(frame.level) == {"last", "pooled", "token"}
    file.write_text("text,label\na,\n")
    assert main(line) == 2 and "line 2 does not fit its head" in last_line(capsys)


def test_the_suite_states_every_number_with_interval_and_null(
    runs: list[Path], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(text_probes, "CS", (1.0,))
    monkeypatch.setattr(text_probes, "KS", (5,))
    monkeypatch.setattr(meta, "STEPS", 20)
    monkeypatch.setattr(meta, "BATCH", 64)
    file = tmp_path / "kinds.csv"
    words = {"alpha": "greek/alpha", "beta": "greek/beta", "12345": "digits"}
    rows = [f"{n} {word},{label}" for n in range(50) for word, label in words.items()]
    file.write_text("\n".join(["text,label", *rows]))
    line = ["eval", str(runs[0]), "--tokens", "300", "--labels", str(file), "--suite", "--controls"]
    assert main([*line, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "report")
    part = result["suite"]
    mine = [row for row in part["rows"] if row["dictionary"] == "sae"]
    assert {"core", "absorption", "meta-structure"} == {row["evaluation"] for row in mine}
    assert "greek" in {row["label"] for row in mine} | set(part["left_out"])
    assert all(row["low"] <= row["value"] <= row["high"] for row in mine)
    assert all(row["null"] is not None for row in mine)
    known = {row["dictionary"] for row in part["rows"] if row["metric"] == "l2 ratio"}
    assert {"frozen_decoder", "shuffled_code", "random_directions"} <= known
    assert {"scr", "tpp", "interchange", "ground truth"} <= set(part["not_measured"])
    assert "core l2 ratio" in eval_suite.text(part) and "suite" in tables.report(result, "run")


def test_probes_need_python_source(runs: list[Path], capsys):
    assert main(["eval", str(runs[0]), "--tokens", "600", "--probe"]) == 2
    assert "holds no Python source: token kinds need a text such as stdlib" in last_line(capsys)


def test_an_sae_of_a_synthetic_world_is_held_to_its_truth(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    from saelab.evaluation import synthetic_cache
    from tests.evaluation.worlds import SMALL

    assert main(["eval"]) == 2
    assert "no run named: saelab eval RUN [RUN ...]" in last_line(capsys)
    cache = synthetic_cache.write(SMALL, tmp_path / "cache", 8000, context=64)
    config = training.Config(
        cache=str(cache), out=str(tmp_path / "run"), features=24, k=3, tokens=2000, batch=256
    )
    run = str(training.train(config))
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(dataclasses.asdict(SMALL)))
    monkeypatch.setattr(eval_suite, "WORLD_TOKENS", 8000)
    monkeypatch.setattr(meta, "STEPS", 20)
    monkeypatch.setattr(meta, "BATCH", 64)
    shutil.rmtree(cache)  # the world is drawn anew
    assert main(["eval", run, "--suite", "--controls", "--world", str(spec), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "report")
    rows = {(row["metric"], row["dictionary"]): row for row in result["suite"]["rows"]}
    assert rows["mcc", "oracle"]["value"] > 0.99 > rows["mcc", "sae"]["value"]
    assert rows["mcc", "random_init"]["value"] < rows["mcc", "oracle"]["value"] - 0.2
    assert rows["f1", "permuted_decoder"]["verdict"] and "verdict" not in rows["f1", "oracle"]
    assert "interchange" in result["suite"]["not_measured"] and "no_losses" in result
    assert "ground truth mcc" in eval_suite.text(result["suite"])
    spec.write_text(json.dumps(dataclasses.asdict(SMALL) | {"seed": 9}))
    assert main(["eval", run, "--world", str(spec)]) == 2
    spec.write_text('{"widht": 3}')
    assert main(["eval", run, "--world", str(spec)]) == 2
    assert "spec.json is no world" in last_line(capsys)
