"""The plan's arithmetic against what is counted and measured on small runs; the document's tables
are what the arithmetic gives."""

import importlib
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

import training
from benchmarks import scale, scaling
from benchmarks.scaling import Plan
from saelab import kernels, ranks
from saelab.activations import Cache
from saelab.activations.from_arrays import from_arrays
from saelab.activations.writer import write
from saelab.sparsify import Choice
from tests.conftest import HOOK
from tests.kernels import inputs
from tests.several import results
from training import collectives
from training.run import Run

PLAN = Plan(width=16, features=96, k=5, batch=24)


def off(counted: float, predicted: float) -> float:
    """The relative difference."""
    return abs(predicted / counted - 1)


def test_the_documents_tables_are_what_the_arithmetic_gives():
    document = scale.DOC.read_text()
    assert scale.renewed(document) == document
    stale = document.replace("| product, ms | 89", "| product, ms | 88")
    assert stale != document and scale.renewed(stale) == document
    with pytest.raises(ValueError, match="no place for the table ceilings"):
        scale.renewed("")


def unknown(document: str) -> list[str]:
    """The options that a document's commands give to verbs that do not have them."""
    blocks = re.findall(r"```\n(.*?)```", document, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    missing = []
    for verb, options in (re.fullmatch(r".*saelab (\S+) (.*)", line).groups() for line in lines):
        known = {field.name for field in fields(importlib.import_module(f"apps.cli.{verb}").Args)}
        given = re.findall(r"--([a-z][a-z-]*)", options)
        missing += [f"{verb} --{name}" for name in given if name.replace("-", "_") not in known]
    return missing


def test_the_documents_commands_have_only_options_that_exist():
    document = scale.DOC.read_text()
    assert document.count("saelab train --") == 2 and unknown(document) == []
    assert unknown(document.replace("--shard-mb", "--shards")) == ["capture --shards"]


def operations() -> dict[str, int]:
    """What torch counts in the product of a reference step and in each of its sparse products,
    which as batches of small matrices are the same numbers."""
    case = inputs.make("random", PLAN.batch, PLAN.features, PLAN.width)
    counted, results = {}, {}
    with FlopCounterMode(display=False) as counter, kernels.backend("reference"):
        code = kernels.choose(case.x, case.W, case.b, Choice(PLAN.k))
    counted["product"] = counter.get_total_flops()
    rows = case.W_dec[code.features].view(PLAN.batch, PLAN.k, PLAN.width)
    values = code.values.view(PLAN.batch, 1, PLAN.k)
    x_hat = kernels.spmm(code, case.W_dec)
    for name, work in {
        "decode": lambda: (values @ rows)[:, 0],
        "latent gradients": lambda: (rows @ x_hat[:, :, None]).flatten(),
        "weight gradients": lambda: [
            n[:, None, None] @ x[code.tokens][:, None] for n, x in ((code.values, case.x),) * 2
        ],
    }.items():
        with FlopCounterMode(display=False) as counter:
            results[name] = work()
        counted[name] = counter.get_total_flops()
    torch.testing.assert_close(results["decode"], x_hat)
    torch.testing.assert_close(results["latent gradients"], kernels.sddmm(x_hat, case.W_dec, code))
    summed = torch.zeros(PLAN.features, PLAN.width)
    summed.index_add_(0, code.features, results["weight gradients"][0][:, 0])
    torch.testing.assert_close(summed, kernels.spmm_t(code, case.x))
    return counted


def test_the_operations_of_a_step_are_those_that_torch_counts():
    predicted = scaling.operations(PLAN)
    for name, counted in operations().items():
        assert counted == predicted[name]
        assert counted != scaling.operations(PLAN._replace(k=6, features=97))[name]


@pytest.fixture(scope="module")
def trained(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> training.Config:
    """A finished run with bfloat16 moments."""
    out = tmp_path_factory.mktemp("scale") / "run"
    options = {"features": 256, "k": 4, "batch": 256, "tokens": 1024, "calibration": 256}
    config = training.Config(
        cache=str(tiny_cache), out=str(out), hook=HOOK, moments="bfloat16", **options
    )
    training.train(config)
    return config


@pytest.mark.parametrize(("moments", "size"), [("float32", 4), ("bfloat16", 2)])
def test_parameters_and_moments_take_what_is_predicted(trained, moments: str, size: int):
    x = next(Cache(trained.cache).batches(HOOK, 256))
    run = Run(replace(trained, moments=moments), x, x)
    plan = Plan(run.sae.d_model, 256, 4, 256, moments=size)
    held = scaling.memory(plan)
    assert sum(p.nbytes for p in run.sae.parameters()) == held["parameters"]
    pairs = run.optimiser.moments().values()
    assert sum(moment.nbytes for pair in pairs for moment in pair) == held["moments"]
    run.sae(x).square().sum().backward()
    gradients = sum(p.grad.nbytes for p in run.sae.parameters())
    assert gradients == scaling.memory(plan._replace(fused=False))["gradients"]


def test_a_checkpoint_has_the_predicted_size_and_without_its_moments_has_not(
    trained, tmp_path: Path
):
    (path,) = Path(trained.out, "checkpoints").glob("*.safetensors")
    tensors = load_file(path)
    plan = Plan(tensors["sae.W_enc"].shape[1], 256, 4, 256, moments=2)
    assert off(path.stat().st_size, scaling.checkpoint(plan)) < 0.1
    save_file({k: t for k, t in tensors.items() if "adam" not in k}, tmp_path / "less")
    assert off((tmp_path / "less").stat().st_size, scaling.checkpoint(plan)) > 0.3


def shard_bytes(folder: Path) -> int:
    """Bytes of a cache's shards on disk."""
    return sum(path.stat().st_size for path in folder.glob("[0-9]*.safetensors"))


@pytest.mark.parametrize(
    ("dtype", "number", "extra"), [("float32", 4, 0), ("float16", 2, 0), ("int8", 1, 4)]
)
def test_a_cache_has_the_predicted_size(tmp_path: Path, dtype: str, number: int, extra: int):
    x = torch.randn(8192, 64, generator=torch.Generator().manual_seed(0))
    folder = write(from_arrays(x, context=64, dtype=dtype), tmp_path / "cache")
    shards = shard_bytes(folder)
    assert off(shards, scaling.cache(8192, 64, number, extra)) < 0.03
    assert off(shards, scaling.cache(8192, 64, 2 * number, extra)) > 0.3


def test_a_cache_of_contexts_stores_a_first_position_that_does_not_count(tiny_cache: Path):
    cache = Cache(tiny_cache)
    tokens = sum(cache.n_tokens(split) for split in ("train", "held_out"))
    width = sum(hook["width"] for hook in cache.manifest["hooks"].values())
    assert off(shard_bytes(tiny_cache), scaling.cache(tokens, width, 4, context=32)) < 0.03


def sent(layout: str) -> dict[str, int]:
    """Bytes that a rank sends in a step, by what they are."""
    x = torch.randn(PLAN.batch, PLAN.width, generator=torch.Generator().manual_seed(0))
    config = training.Config(
        cache="a",
        out="b",
        features=PLAN.features,
        k=PLAN.k,
        batch=PLAN.batch,
        tokens=10 * PLAN.batch,
        layout=layout,
        device="cpu",
        backend="reference",
    )
    run = Run(config, x, x)
    collectives.sent.clear()
    run.step(x, x)
    return dict(collectives.sent)


def sent_under_both() -> list[dict[str, int]]:
    """What this rank sends under each layout."""
    with ranks.joined():
        return [sent("sharded"), sent("replicated")]


@pytest.mark.parametrize("n", [2, 4])
def test_what_ranks_send_is_what_is_predicted(n: int):
    shared, all_of_it = results(n, sent_under_both)[0]
    predicted = scaling.wire(PLAN._replace(ranks=n))
    # On CPUs every rank has read the whole batch; cards get their shares from each other.
    assert shared == {name: size for name, size in predicted.items() if name != "tokens"}
    assert off(sum(all_of_it.values()), scaling.replicated(PLAN._replace(ranks=n))) < 0.01
    assert shared["scores"] != scaling.wire(PLAN._replace(ranks=n, k=6))["scores"]


def test_both_layouts_send_as_much_at_the_batch_where_they_meet():
    for features, n in ((1 << 14, 8), (1 << 20, 64)):
        batch = scaling.crossover(4096, features, 64, n)
        plan = Plan(4096, features, 64, round(batch), ranks=n)
        assert off(scaling.replicated(plan), sum(scaling.wire(plan).values())) < 1e-3
        assert off(4 / 3 * features, batch) < 0.02


def test_a_measured_step_has_the_structure_that_is_assumed():
    steps = json.loads(scale.RESULTS.read_text())["steps"]
    asked = [step for step in steps if not step["fitted"]]
    assert len(asked) == len(scale.PREDICTED)
    assert all(0.75 < step["predicted"] / step["ms"] < 1.33 for step in asked)
