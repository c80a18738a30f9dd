"""A recipe with lists is a sweep: the product of its runs, in one pass, in folders named after what
varies."""

import json
from pathlib import Path

import pytest

from apps.cli import main
from saelab import SAE
from saelab.errors import UsageError
from tests.conftest import HOOK, SECOND_HOOK
from training import recipes, sweep


def test_lists_make_the_product_of_runs():
    found = sweep.of({"k": (4, 8), "sparsify": ("topk", "batchtopk"), "features": 64})
    runs = found._replace(
        base=found.base.__class__(**{**vars(found.base), "out": "runs"})
    ).configs()
    assert [(r.k, r.sparsify, r.features, r.out) for r in runs] == [
        (4, "topk", 64, "runs/k=4,sparsify=topk"),
        (4, "batchtopk", 64, "runs/k=4,sparsify=batchtopk"),
        (8, "topk", 64, "runs/k=8,sparsify=topk"),
        (8, "batchtopk", 64, "runs/k=8,sparsify=batchtopk"),
    ]
    assert len(sweep.of({"prefixes": (8, 16)}).configs()) == 1
    assert [r.prefixes for r in sweep.of({"prefixes": ((8, 16), ())}).configs()] == [(8, 16), ()]


def test_a_sweep_trains_every_run_as_if_alone(tiny_cache: Path, tmp_path: Path, capsys):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(
        f"hook: [{HOOK}, {SECOND_HOOK}]\nk: [3, 4, 5]\nfeatures: 64\ntokens: 2560\nbatch: "
        "256\nlr: 1e-3\n"
    )
    words = ["train", str(recipe), "--cache", str(tiny_cache), "--json"]
    assert main([*words, "--out", str(tmp_path / "runs"), "--k", "4"]) == 0
    capsys.readouterr()
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        f"hook={hook}" for hook in (HOOK, SECOND_HOOK)
    ]
    recipe.write_text(recipe.read_text().replace("[3, 4, 5]", "[3, 4]"))
    assert main([*words, "--out", str(tmp_path / "more")]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert len(runs) == 4 and [run["l0"] for run in runs] == [3, 4, 3, 4]
    files = [
        tmp_path / place / "sae" / "sae.safetensors"
        for place in (f"runs/hook={HOOK}", f"more/hook={HOOK},k=4")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert SAE.load(runs[2]["run"]).origin.hook == "blocks.1.attn.hook_z"


def test_a_star_stands_for_every_hook_of_the_cache_and_for_its_layer(tiny_cache: Path):
    base = sweep.Config(cache=str(tiny_cache), hook="blocks.*", target="blocks.*.hook_mlp_out")
    configs = sweep.Sweep(base, {"k": (4, 8)}).configs()
    assert [(one.hook, one.target, one.k) for one in configs] == [
        (HOOK, "blocks.0.hook_mlp_out", 4),
        (HOOK, "blocks.0.hook_mlp_out", 8),
        (SECOND_HOOK, "blocks.1.hook_mlp_out", 4),
        (SECOND_HOOK, "blocks.1.hook_mlp_out", 8),
    ]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"hook": "blocks.*.mlp.hook_in"}, r"no hook of .* is blocks\.\*\.mlp\.hook_in: it holds"),
        ({"hook": "embed", "target": "blocks.*.hook_mlp_out"}, "takes its layer from the hook"),
        ({"hook": "blocks.*", "live": True}, "names hooks of a cache: with --live give each"),
    ],
)
def test_a_star_that_stands_for_nothing_is_refused(tiny_cache: Path, fields: dict, sentence: str):
    config = sweep.Config(cache=str(tiny_cache), **fields)
    with pytest.raises(UsageError, match=sentence):
        sweep.Sweep(config, {}).configs()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "batch: [256, 512]",
            "batch cannot be a list: runs of a sweep share one pass over one cache",
        ),
        ("cache: [a, b]", "cache cannot be a list"),
        ("k: []", "k is a list without entries"),
        ("k: [4, 128]\nfeatures: 64\ncache: c\nout: o", "k=128 is more than features=64"),
    ],
)
def test_members_that_cannot_share_a_pass_are_refused(tmp_path: Path, capsys, text, words):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(text + "\n")
    assert main(["train", str(recipe), "--out", str(tmp_path / "runs")]) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_recipe_of_one_run_is_read_as_one(tmp_path: Path):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text("k: [4, 8]\n")
    with pytest.raises(UsageError, match="several runs: k are lists"):
        recipes.read(str(recipe))
