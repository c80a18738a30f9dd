"""Training cross-layer transcoders and crosscoders: a step is autograd's in float64, one layer is a
transcoder's run, one hook an SAE's, hooks have scales of their own, a resumed run is the same bits.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import training
from saelab import SAE, CrossLayerTranscoder
from saelab.activations import Cache
from saelab.cross_layer import CrossLayerTranscoder as Clt
from saelab.errors import UsageError
from saelab.kernels.cpu import probe
from training import sweep
from training.checks import check
from training.layered import Layered
from training.run import Run
from training.scale import scale_of
from training.updates import Autograd, Batch

L, D = 3, 8
READS, WRITES = ([f"blocks.{i}.{place}" for i in range(L)] for place in ("in", "out"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations of three made-up layers, each of another size; a layer's output is of its own
    input and those before it."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3000, D, generator=generator) * 10**i for i in range(L)]
    arrays = dict(zip(READS, inputs, strict=True))
    for i, name in enumerate(WRITES):
        mixed = sum(x.relu() @ torch.randn(D, D, generator=generator) / 10**j for j, x in
                    enumerate(inputs[: i + 1]))  # fmt: skip
        arrays[name] = mixed * 5**i
    out = tmp_path_factory.mktemp("layers") / "cache"
    return Cache.write(out, "arrays", arrays=arrays).path


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> training.Config:
    base = training.Config(
        cache=str(cache), out=str(tmp_path / "clt"), hook="blocks.*.in", target="blocks.*.out",
        clt=True, features=32, k=4, batch=128, tokens=128 * 12, lr=0.01, dead_window=256,
        checkpoint_every=5, log_every=1,
    )  # fmt: skip
    return sweep.Sweep(base, {}).configs()[0]


def stepped(config: training.Config, n: int = 6) -> tuple[Run, list]:
    cache = Cache(config.cache)
    hook = config.hook or ""
    target = config.target or hook
    stream = cache.batches([hook, target], config.batch)
    first = next(stream)
    run = Run(config, first[hook], first[target], (cache.widths(hook), cache.widths(target)))
    return run, [run.step(x[hook], x[target]) for x in (next(stream) for _ in range(n))]


@pytest.mark.parametrize("sparsify", ["topk", "batchtopk"])
def test_a_backends_steps_are_autograds(config: training.Config, sparsify: str):
    config = replace(config, sparsify=sparsify, features=128, dead_window=128)
    with probe.screening(torch.float32):
        fused, measured = stepped(replace(config, backend="cpu"))
    plain, expected = stepped(replace(config, backend="reference"))
    assert isinstance(fused.optimiser, Layered) and isinstance(plain.optimiser, Autograd)
    assert float(measured[-1].terms["aux"]) > 0, "the comparison must include AuxK"
    for mine, theirs in zip(measured, expected, strict=True):
        assert mine._replace(certified=None).row() == pytest.approx(theirs.row(), rel=1e-3)
    for name, weight in plain.sae.state_dict().items():
        torch.testing.assert_close(fused.sae.state_dict()[name], weight, rtol=1e-2, atol=3e-4)
    rows = torch.cat([layer.W_dec.norm(dim=1) for layer in fused.sae.layers])
    torch.testing.assert_close(rows, torch.ones_like(rows), rtol=0, atol=1e-6)


def test_the_loss_is_of_one_residual(config: training.Config):
    run, _ = stepped(config, 1)
    clt = run.sae
    assert isinstance(clt, Clt)
    x_BD = torch.randn(50, L * D, generator=torch.Generator().manual_seed(1))
    target_BE = x_BD.roll(1, 0)
    measured = run.optimiser.forward(Batch(x_BD, target_BE), variance=2.0)
    due = (clt.double()(x_BD.double()) - target_BE).square().sum() / (50 * 2.0)
    assert float(measured.loss) == pytest.approx(float(due.detach()), rel=1e-5)


@pytest.fixture
def same_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of other configurations start from other weights: here from the same."""
    monkeypatch.setattr("training.start.seed_of", lambda config: config.seed)


@pytest.mark.usefixtures("same_start")
def test_of_one_layer_it_is_the_transcoder_of_that_seed(config: training.Config):
    one = replace(config, hook=READS[1], target=WRITES[1])
    clt, transcoder = stepped(one)[0].final(), stepped(replace(one, clt=False))[0].final()
    assert isinstance(clt, Clt) and isinstance(transcoder, SAE)
    for name in ("W_enc", "b_enc", "W_dec"):
        mine, theirs = getattr(clt.layers[0], name), getattr(transcoder, name)
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_every_hook_has_its_own_scale(config: training.Config):
    """The known-bad twin, one number for all, leaves the first layers unseen."""
    run, _ = stepped(config, 1)
    assert isinstance(run.scale.input, Tensor) and isinstance(run.scale.target, Tensor)
    numbers = run.scale.input[::D]
    assert (numbers[1:] / numbers[:-1]).tolist() == pytest.approx([10, 10], rel=0.1)
    x = next(Cache(config.cache).batches([config.hook, config.target], 512))
    both = (x[config.hook], x[config.target])
    own, common = scale_of(*both, ([D] * L, [D] * L)), scale_of(*both)
    shares = [
        (both[1] / scale.target).var(0).view(L, D).sum(1) / scale.variance
        for scale in (own, common)
    ]
    assert float(shares[0].min()) > 0.2 > 0.01 > float(shares[1].min())


def test_a_saved_one_works_on_raw_activations(config: training.Config):
    run, _ = stepped(config, 2)
    x_BD = next(Cache(config.cache).batches(str(config.hook), 64))
    final = run.final()
    assert final is not None
    due_BE = run.sae(x_BD / run.scale.input) * run.scale.target
    torch.testing.assert_close(final(x_BD), due_BE, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["clt", "crosscoder"])
def test_interrupted_and_resumed_it_is_the_same_bits(config: training.Config, kind: str):
    if kind == "crosscoder":
        config = replace(config, clt=False, crosscoder=True, target=None, sparsify="batchtopk")
    whole = training.train(config)
    assert isinstance(whole, Path)
    broken = replace(config, out=f"{config.out}-broken")

    def stop(step: int, n_steps: int, steps: list) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(broken, progress=stop)
    again = training.train(broken, resume=True)
    assert isinstance(again, Path)
    for name in ("sae/sae.safetensors", "checkpoints/step-00000012.safetensors"):
        one, other = load_file(whole / name), load_file(again / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert (whole / "metrics.jsonl").read_bytes() == (again / "metrics.jsonl").read_bytes()
    load = CrossLayerTranscoder.load if kind == "clt" else SAE.load
    assert load(whole).origin.hook == "+".join(READS)


@pytest.mark.usefixtures("same_start")
def test_a_crosscoder_of_one_hook_is_an_sae_bit_for_bit(config: training.Config):
    base = replace(config, clt=False, hook=READS[0], target=None)
    plain, crossed = (stepped(replace(base, crosscoder=one))[0] for one in (False, True))
    assert all(torch.equal(value, crossed.state()[name]) for name, value in plain.state().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": None}, "clt needs what its layers write to"),
        ({"target": WRITES[0]}, "3 hooks have 1 targets"),
        ({"hook": "+".join(READS[::-1])}, "layers that rise"),
        (
            {"hook": "+".join(READS[1:]), "target": "+".join([WRITES[0], WRITES[2]])},
            "layer 1 would write to layer 0",
        ),
        ({"sparsify": "jumprelu"}, "not with jumprelu"),
        ({"loss": "matryoshka"}, "loss=matryoshka is not for clt"),
        ({"clt": False}, "writes to earlier layers: give --clt"),
    ],
)
def test_what_cannot_be_is_refused(config: training.Config, changes: dict, said: str):
    with pytest.raises(UsageError, match=said):
        check(replace(config, **changes))
