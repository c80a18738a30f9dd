"""Bad input to the verbs after capture: one clear last line, the right exit code, nothing
half-written."""

import json
import shutil
from pathlib import Path

import pytest

from apps.cli import main
from saelab.files import write_json
from tests.conftest import HOOK


def last_line(capsys: pytest.CaptureFixture) -> str:
    """What the user reads last on standard error."""
    return capsys.readouterr().err.strip().splitlines()[-1]


def words(*parts: object) -> list[str]:
    """A command line."""
    return [str(part) for part in parts]


@pytest.fixture
def copy(tiny_cache: Path, tmp_path: Path) -> Path:
    """A cache that may be spoiled."""
    return Path(shutil.copytree(tiny_cache, tmp_path / "cache"))


def test_k_above_the_features_is_refused_with_the_numbers(tiny_cache: Path, tmp_path: Path, capsys):
    out = tmp_path / "run"
    code = main(
        words(
            "train",
            "--cache",
            tiny_cache,
            "--out",
            out,
            "--hook",
            HOOK,
            "--features",
            32,
            "--k",
            64,
        )
    )
    assert (code, out.exists()) == (2, False)
    assert "k=64 is more than features=32" in last_line(capsys)


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (
            ["--hook", "blocks.7.hook_out"],
            2,
            "holds no hook 'blocks.7.hook_out'; it holds blocks.0.hook_resid_post",
        ),
        ([], 2, "say which with --hook"),
        (
            ["--hook", HOOK, "--sparsify", "top-k"],
            2,
            "no sparsifier 'top-k'; there are topk, abstopk",
        ),
        (["--hook", HOOK, "--batch", "65536"], 2, "tokens=2000 is less than one batch of 65536"),
        (["--hook", HOOK, "--sparsify", "feature-choice", "--k", "1"], 2, "--batch 4096"),
        (
            ["--hook", HOOK, "--sparsify", "g-sae"],
            2,
            "make a cache with `saelab capture --gradients`",
        ),
        (["--hook", HOOK, "--shares", "zipf"], 2, "topk has none: use feature-choice"),
        (
            ["--hook", HOOK, "--sparsify", "feature-choice", "--mutual", "1"],
            2,
            "mutual=1.0: give a number from 0 to below 1",
        ),
        (["--hook", HOOK, "--sparsify", "relu", "--beta", "1"], 2, "beta=1.0: relu has no score"),
        (["--hook", HOOK, "--beta", "-1"], 2, "beta=-1.0: give a number of at least 0"),
        (
            ["--hook", HOOK, "--sparsify", "batchtopk", "--loss", "hierarchical"],
            2,
            "goes with topk and abstopk, not with batchtopk",
        ),
        (
            ["--hook", HOOK, "--loss", "multi-k", "--features", "64"],
            2,
            "codes 4k=128 pairs per token, more than features=64",
        ),
        (
            ["--hook", HOOK, "--loss", "matryoshka", "--prefixes", "64", "32"],
            2,
            "prefixes=[64, 32] must rise, from 1 to at most 4096",
        ),
        (
            ["--hook", HOOK, "--prefixes", "8"],
            2,
            "prefixes=[8] belong to loss=matryoshka or loss=hierarchical",
        ),
        (
            ["--hook", HOOK, "--penalty", "l0"],
            2,
            "penalty=l0 is for jumprelu and relu: topk has a budget",
        ),
        (
            ["--hook", HOOK, "--sparsify", "relu", "--penalty", "l0"],
            2,
            "relu has none: give l1 or tanh",
        ),
        (["--hook", HOOK, "--skip"], 2, "skip needs a transcoder: name a --target"),
        (
            ["--hook", HOOK, "--target", HOOK, "--normalise", "token"],
            2,
            "a transcoder predicts another hook: leave it out",
        ),
        (["--hook", HOOK, "--clip", "0"], 2, "clip=0.0: give a number above 0"),
        (["--hook", HOOK, "--ema", "1"], 2, "ema=1.0: give a number between 0 and 1"),
        (["--hook", HOOK, "--colour", "red"], 2, "--colour"),
        (["--hook", HOOK, "--features", "many"], 2, "many"),
        (["--hook", HOOK, "--backend", "cuda"], 2, "cuda"),
    ],
)
def test_a_wrong_train_command_says_what_would_be_right(
    tiny_cache, tmp_path, capsys, extra, code, message
):
    out = tmp_path / "run"
    command = words(
        "train", "--cache", tiny_cache, "--out", out, "--tokens", 2000, "--batch", 256, *extra
    )
    assert main(command) == code
    assert message in last_line(capsys)
    assert not out.exists()


def test_recipes_with_unknown_fields_or_no_file_are_refused(tmp_path: Path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 1\n")
    assert main(words("train", recipe)) == 2
    assert "no field learning_rate; there are cache, out, hook" in last_line(capsys)
    assert main(["train", "no-such-recipe"]) == 2
    assert (
        "no recipe 'no-such-recipe': neither a file nor one of abstopk, demo, g-sae, matryoshka, "
        "mutual-feature-choice" in last_line(capsys)
    )


def test_a_damaged_cache_stops_training_and_names_the_shard(copy: Path, tmp_path: Path, capsys):
    shard, out = copy / "00002.safetensors", tmp_path / "run"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    command = words("train", "--cache", copy, "--out", out, "--hook", HOOK, "--batch", 256)
    command += words("--features", 64, "--k", 4, "--tokens", 1000)
    assert main(command) == 1
    assert "00002.safetensors" in last_line(capsys) and not out.exists()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    assert main(command) == 1  # a shard's bytes are compared when it is first read
    assert "00002.safetensors" in last_line(capsys) and not (out / "sae").exists()
    shard.write_bytes(whole)
    assert main([*command, "--resume"]) == 0


def test_an_occupied_run_folder_is_refused_and_left_alone(
    tiny_run: Path, tiny_cache: Path, tmp_path: Path, capsys
):
    before = {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*")}
    command = words(
        "train", "--cache", tiny_cache, "--out", tiny_run, "--hook", HOOK, "--batch", 256
    )
    assert main(command) == 2
    assert "already holds another run: choose another --out, or --resume" in last_line(capsys)
    assert main([*command, "--resume"]) == 2
    assert "another configuration (asked / held): k: 32 / 4, features: 4096 / 64" in last_line(
        capsys
    )
    assert before == {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*")}


@pytest.mark.parametrize("verb", ["eval", "index"])
def test_a_run_without_its_sae_is_refused(verb: str, tiny_run: Path, tmp_path: Path, capsys):
    assert main([verb, str(tmp_path)]) == 2
    assert "holds no SAE: it is empty" in last_line(capsys)
    broken = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (broken / "sae" / "sae.safetensors").unlink()
    assert main([verb, str(broken)]) == 2
    assert "has no sae.safetensors" in last_line(capsys)


@pytest.mark.parametrize("verb", ["eval", "index"])
def test_a_cache_of_another_model_than_the_runs_is_refused(
    verb: str, tiny_run: Path, copy: Path, capsys
):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"] |= {"revision": "0" * 64, "weights": "0" * 64}
    write_json(copy / "manifest.json", manifest)
    assert main(words(verb, tiny_run, "--cache", copy)) == 2
    assert "they differ in weights" in last_line(capsys)


def test_weights_that_turn_non_finite_stop_the_run_and_keep_the_checkpoint(
    tiny_cache: Path, tmp_path: Path, capsys, monkeypatch
):
    from training import run

    monkeypatch.setattr(run.Run, "rate", lambda self: float("inf") if self.n_done > 30 else 1e-3)
    out = tmp_path / "run"
    options = (
        "--features",
        64,
        "--k",
        4,
        "--tokens",
        20_000,
        "--batch",
        256,
        "--checkpoint-every",
        10,
    )
    assert main(words("train", "--cache", tiny_cache, "--out", out, "--hook", HOOK, *options)) == 1
    assert "the last good checkpoint is kept" in last_line(capsys)
    assert (out / "checkpoints" / "step-00000030.safetensors").exists() and not (
        out / "sae"
    ).exists()


def test_an_unknown_verb_lists_the_verbs(capsys):
    assert main(["trian"]) == 2
    assert "no verb 'trian': did you mean train?" in last_line(capsys)


def test_debug_shows_the_traceback(tmp_path: Path):
    from saelab.errors import UsageError

    with pytest.raises(UsageError):
        main(["eval", str(tmp_path), "--debug"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["browse", "--no-open"],
            "saelab browse: Unrecognized options: --no-open; see saelab browse --help",
        ),
        (
            ["train", "--k"],
            "saelab train: Missing value for argument '--k'. Expected 1 values; see saelab train "
            "--help",
        ),
        (
            ["circuits", "--repeats", "two"],
            "saelab circuits: Error parsing --repeats: 'two' is no whole number such as 2000000, "
            "500k or 2M; see saelab circuits --help",
        ),
        (
            ["browse", "--port", "x"],
            "saelab browse: Error parsing --port: 'x' is no whole number such as 2000000, 500k or "
            "2M; see saelab browse --help",
        ),
    ],
)
def test_a_command_line_that_does_not_parse_is_told_in_one_short_line(
    capsys, command: list[str], message: str
):
    assert main(command) == 2
    assert last_line(capsys) == message
