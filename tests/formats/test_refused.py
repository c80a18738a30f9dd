"""Files that cannot be read right are refused with the reason, and run nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saelab import SAE, formats
from saelab.errors import FailedRun, UsageError
from tests.formats import other_files, saelens_files
from tests.formats.editing import edited, rewritten
from tests.formats.files import WRITTEN

REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a scale that is not said": (
        "saelens_topk_checkpoint",
        lambda at: (at / "activation_scaler.json").unlink(),
        "inputs scaled by one number",
    ),
    "an architecture without a form": (
        "saelens_gated",
        lambda at: edited(at, architecture="matching_pursuit"),
        "'matching_pursuit', which codes by steps",
    ),
    "an unknown normalisation": (
        "saelens_gated",
        lambda at: edited(at, normalize_activations="covariance_whitening"),
        "normalises its inputs by 'covariance_whitening'",
    ),
    "one head": (
        "saelens_gated",
        lambda at: edited(at, hook_head_index=3),
        "reads head 3",
    ),
    "a tensor that is missing": (
        "saelens_gated",
        lambda at: save_file({"W_enc": torch.zeros(6, 24)}, at / "sae_weights.safetensors"),
        "lacks W_dec, b_dec, b_gate, b_mag, r_mag: it has W_enc",
    ),
    "a decoder of another shape": (
        "saelens_log_threshold",
        lambda at: rewritten(at / "sae_weights.safetensors", W_dec=torch.zeros(6, 24)),
        r"W_dec is of 6 features, W_enc \[24, 6\] and W_dec \[6, 24\] need 24",
    ),
    "weights that are not finite": (
        "saelens_log_threshold",
        lambda at: rewritten(at / "sae_weights.safetensors", W_dec=torch.full((24, 6), torch.nan)),
        "values that are not finite",
    ),
    "groups instead of a top-k": (
        "sparsify_transcoder",
        lambda at: edited(at / "layers.3.mlp", activation="groupmax"),
        "one feature of each of 3 groups",
    ),
    "a batch top-k without a threshold": (
        "dl_batchtopk",
        lambda at: torch.save(
            {**torch.load(at / "ae.pt"), "threshold": torch.tensor(-1.0)}, at / "ae.pt"
        ),
        "its threshold is -1: its training ended before one was set",
    ),
    "a backup of a training": (
        "dl_topk",
        lambda at: torch.save({"step": 1, "ae": {}, "norm_factor": 2.0}, at / "ae.pt"),
        "a backup of a training under way",
    ),
    "a class that is not known": (
        "dl_topk",
        lambda at: (at / "config.json").write_text('{"trainer": {"dict_class": "CrossCoder"}}'),
        "is a CrossCoder: known are AutoEncoder",
    ),
    "a class that its tensors do not say": (
        "dl_topk",
        lambda at: (at / "config.json").unlink(),
        "do not say which",
    ),
    "negative values": (
        "openai_topk",
        lambda at: torch.save(
            {**torch.load(at / "layer_3.pt"), "activation": "Identity"}, at / "layer_3.pt"
        ),
        "keeps negative values",
    ),
    "a k that only its folder says": (
        "qwen_scope",
        lambda at: next(at.iterdir()).rename(at / "renamed"),
        "does not say how many features a token has",
    ),
    "a cross-layer transcoder": (
        "circuit_tracer",
        lambda at: (at / "config.yaml").write_text("model_kind: cross_layer_transcoder"),
        "is a cross_layer_transcoder",
    ),
    "another dictionary of the package": (
        "llamascopium",
        lambda at: (at / "config.json").write_text('{"sae_type": "lorsa"}'),
        "is a lorsa: no form here yet",
    ),
    "a norm that is not said": (
        "r1_distill",
        lambda at: (at / "config.json").write_text(
            json.dumps({"norm_activation": "dataset-wise", "d_model": 6})
        ),
        "does not say the mean norm of its inputs",
    ),
    "a schema of before": (
        "saev",
        lambda at: (at / "sae.pt").write_bytes(b'{"schema": 1, "cfg": {}}' + b"\n"),
        "schema 1, known are 2 to 5",
    ),
    "a file cut short": (
        "saelens_gated",
        lambda at: (at / "sae_weights.safetensors").write_bytes(
            (at / "sae_weights.safetensors").read_bytes()[:-8]
        ),
        "sae_weights.safetensors cannot be read",
    ),
    "a pickle cut short": (
        "openai_topk",
        lambda at: (at / "layer_3.pt").write_bytes((at / "layer_3.pt").read_bytes()[:-200]),
        "layer_3.pt cannot be read",
    ),
    "an archive cut short": (
        "gemma_scope_transcoder",
        lambda at: (next(at.rglob("params.npz"))).write_bytes(
            next(at.rglob("params.npz")).read_bytes()[:-100]
        ),
        "params.npz cannot be read",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_right_is_refused_with_the_reason(what: str, tmp_path: Path):
    name, change, reason = REFUSED[what]
    file = WRITTEN[name](tmp_path / "published")
    change(tmp_path / "published")
    path = file.path if file.path.exists() else next((tmp_path / "published").rglob("*.pt"))
    with pytest.raises((UsageError, FailedRun), match=reason):
        SAE.load(path)


class Trap:
    """An object that leaves a mark where a pickle of it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path):
    mark = tmp_path / "ran"
    torch.save({"ae": Trap(mark)}, tmp_path / "ae.pt")
    with pytest.raises(UsageError, match="reading that could run code"):
        SAE.load(tmp_path)
    torch.save({"W": Trap(mark)}, tmp_path / "mine.pt")
    with pytest.raises(UsageError, match="reading that could run code"):
        SAE.load(tmp_path / "mine.pt")
    assert not mark.exists()
    torch.load(tmp_path / "mine.pt", weights_only=False)
    assert mark.exists()  # the trap works


def test_an_archive_of_objects_is_refused(tmp_path: Path):
    objects = {name: np.array([{}], dtype=object) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    np.savez(tmp_path / "params.npz", **objects, threshold=np.zeros(3))
    with pytest.raises(UsageError, match="Python objects in W_enc"):
        SAE.load(tmp_path)


def test_two_forms_of_one_folder_are_told_apart_by_name(tmp_path: Path):
    at = saelens_files.saelens_gated(tmp_path / "published").path
    save_file({"W_dec": torch.zeros(3, 3)}, at / "sae.safetensors")
    with pytest.raises(UsageError, match="of the forms saelens and sparsify"):
        SAE.load(at)
    assert formats.load(at, "saelens").n_features == 24
    with pytest.raises(UsageError, match="no format 'sae-lens'; there are saelab, saelens"):
        formats.load(at, "sae-lens")


def test_a_folder_of_many_names_them(tmp_path: Path):
    other_files.sparsify(tmp_path)
    other_files.sparsify_transcoder(tmp_path)
    with pytest.raises(UsageError, match=r"holds 2 SAEs.*\(layers.3/seed0, layers.3.mlp\)"):
        SAE.load(tmp_path)
