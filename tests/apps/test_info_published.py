"""`saelab info` of what others wrote: what it is, told without reading weights, whether it is
whole, and what to type."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from apps.cli import main
from saelab import SAE, models
from saelab.formats.matrices import Matrix
from saelab.models import describing, running
from tests.apps.test_import import verb
from tests.apps.test_info import info
from tests.conftest import ROOT
from tests.formats import other_files, saelens_files, scope_files
from tests.formats.editing import edited, rewritten
from tests.formats.files import WRITTEN
from tests.models.architectures import save
from tests.models.test_weights import with_tokenizer


@pytest.mark.parametrize("name", WRITTEN)
def test_what_info_says_without_reading_weights_is_what_loading_gives(
    name: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    path = WRITTEN[name](tmp_path / "theirs").path
    sae = SAE.load(path)
    monkeypatch.setattr(Matrix, "pieces", None)  # whoever reads a weight fails
    code, document, _ = info(capsys, path)
    facts = document["facts"]
    assert (code, document["kind"], document["whole"]) == (0, "published SAE", True)
    assert facts["format"] == sae.origin.format
    sizes = {"d_model": sae.d_model, "n_features": sae.n_features, "d_out": len(sae.b_dec)}
    assert sizes == {name: facts[name] for name in sizes}
    assert facts["hook"] == (sae.origin.hook or None)
    assert facts["architecture"].endswith("transcoder") == sae.transcoder
    assert ("skip" in facts["architecture"]) == (sae.transcoder and sae.W_skip is not None)
    assert facts["k"] == getattr(sae.sparsify, "k", None)
    done = [what.partition(", where")[0] for what in facts["applied"]]
    assert set(sae.origin.more["applied"]) <= set(done)


def test_what_it_would_take_is_typed_as_it_stands(tmp_path: Path, capsys):
    path = scope_files.openai_topk(tmp_path / "their saes").path
    facts = info(capsys, path)[1]["facts"]
    assert facts["next"] == [
        f"saelab import '{path}' --out RUN --model M --hook H",
        "saelab capture --for RUN",
        "saelab eval RUN",
    ]
    assert facts["unknown"][:1] == ["the model: --model says which"]
    assert main(["info", str(path)]) == 0
    assert f"  to use it:\n    {facts['next'][0]}" in capsys.readouterr().out


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def lacks(file: Path, name: str) -> None:
    save_file({key: value for key, value in load_file(file).items() if key != name}, file)


WEIGHTS = "sae_weights.safetensors"
DAMAGED: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "cut": ("saelens_gated", lambda at: cut(at / WEIGHTS), WEIGHTS, "incomplete"),
    "a layer cut": (
        "circuit_tracer", lambda at: cut(next(at.glob("layer_*"))), "layer_", "incomplete",
    ),
    "distilled, cut": ("r1_distill", lambda at: cut(at / WEIGHTS), WEIGHTS, "incomplete"),
    "a tensor missing": (
        "saelens_gated", lambda at: lacks(at / WEIGHTS, "r_mag"), WEIGHTS, "lacks r_mag",
    ),
    "of two SAEs": (
        "saelens_gated", lambda at: edited(at, d_sae=48), WEIGHTS,
        "its configuration says 48 features, its tensors have 24",
    ),
    "of two widths": (
        "dl_topk",
        lambda at: (at / "config.json").write_text(
            '{"trainer": {"dict_class": "AutoEncoderTopK", "activation_dim": 7}}'
        ),
        "ae.pt", "its configuration says 7 inputs, its tensors have 6",
    ),
    "a configuration that is none": (
        "saelens_gated", lambda at: (at / "cfg.json").write_text("{"), "cfg.json", "it is no JSON",
    ),
    "another shape": (
        "saelens_log_threshold",
        lambda at: rewritten(at / WEIGHTS, b_enc=torch.zeros(23)), WEIGHTS, "b_enc is of 23",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_not_whole_is_named(what: str, tmp_path: Path, capsys):
    name, damage, file, problem = DAMAGED[what]
    path = WRITTEN[name](tmp_path / "theirs").path
    damage(tmp_path / "theirs")
    code, document, last = info(capsys, path)
    (row,) = [row for row in document["files"] if row["problem"]]
    assert (code, document["whole"]) == (1, False)
    assert row["file"].startswith(file) and problem in row["problem"] and problem in last


def test_weights_that_are_not_finite_are_found_where_they_are_read(tmp_path: Path, capsys):
    path = saelens_files.saelens_log_threshold(tmp_path / "theirs").path
    rewritten(path / WEIGHTS, W_dec=torch.full((24, 6), torch.nan))
    assert info(capsys, path)[0] == 0
    code, _, last = info(capsys, path, "--verify")
    assert code == 1 and "values that are not finite" in last


def test_what_has_no_form_here_says_why(tmp_path: Path, capsys):
    path = saelens_files.saelens_gated(tmp_path / "theirs").path
    edited(path, architecture="matching_pursuit")
    code, document, _ = info(capsys, path)
    assert code == 0 and "codes by steps" in document["facts"]["refused"]
    assert "next" not in document["facts"]


def test_a_folder_of_many_lists_what_select_takes(tmp_path: Path, capsys):
    other_files.sparsify(tmp_path / "theirs")
    other_files.sparsify_transcoder(tmp_path / "theirs")
    facts = info(capsys, tmp_path / "theirs")[1]["facts"]
    assert facts["holds"] == ["layers.3/seed0", "layers.3.mlp"]
    assert facts["formats"] == {"sparsify": 2}
    for number, word in enumerate(facts["holds"]):
        line = ["import", tmp_path / "theirs", "--select", word, "--out", tmp_path / f"{number}"]
        assert verb(capsys, *line)[0] == 0


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_a_models_hook_points_are_as_wide_as_what_it_gives_there(
    kind: str, tiny_model: Path, tmp_path: Path, capsys
):
    folder = with_tokenizer(save(kind, tmp_path / "model"), tiny_model)
    code, document, _ = info(capsys, folder)
    facts = document["facts"]
    assert (code, document["kind"], document["whole"]) == (0, "model", True)
    told = {name.replace(".N.", ".1."): width for name, width in facts["hook points"].items()}
    shapes = running.shapes(models.load(folder), list(told))
    assert told == {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    assert facts["tokenizer"]["tokens"] > 0 and facts["n_layers"] >= 2
    (folder / "model.safetensors").unlink()
    code, _, last = info(capsys, folder)
    assert code == 1 and "model.safetensors: is missing" in last


def test_the_bundled_model_is_described_by_its_name(bundled: str, tmp_path: Path, monkeypatch):
    assert describing.described(ROOT / "data" / "bundled")["hook points"]["hook_embed"] == 256
    monkeypatch.chdir(tmp_path)
    assert main(["info", bundled]) == 0
