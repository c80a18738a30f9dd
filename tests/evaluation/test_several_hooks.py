"""Reports of dictionaries over several hooks: FVU of each by hand, losses with all replaced, and
with one; what takes no cross-layer transcoder says so."""

import json
from pathlib import Path

import pytest
import torch

import training
from apps.cli import main
from saelab import SAE, Cache, CrossLayerTranscoder, models
from saelab.evaluation import evaluate, in_turn
from saelab.evaluation.downstream import Splice, predicting
from saelab.models import losses, running
from tests.conftest import make_cache
from tests.schemas import check
from training import sweep

READS = [f"blocks.{i}.mlp.hook_in" for i in range(2)]
WRITES = [f"blocks.{i}.hook_mlp_out" for i in range(2)]


@pytest.fixture(scope="module")
def runs(
    tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A cross-layer transcoder and a crosscoder of the tiny model."""
    place = tmp_path_factory.mktemp("several")
    options = {"hooks": READS + WRITES, "n_tokens": 8000}
    cache = make_cache(tiny_model, tiny_corpus, place / "cache", **options)
    base = training.Config(cache=str(cache), features=24, k=4, batch=128, tokens=2560, lr=0.01)
    kinds = {
        "clt": {"clt": True, "hook": "blocks.*.mlp.hook_in", "target": "blocks.*.hook_mlp_out"},
        "crosscoder": {"crosscoder": True, "hook": "blocks.*.hook_mlp_out"},
    }
    made = [
        sweep.Sweep(training.Config(**{**vars(base), **more, "out": str(place / kind)}), {})
        for kind, more in kinds.items()
    ]
    training.train([one for each in made for one in each.configs()])
    return {kind: place / kind for kind in kinds}


def near(estimate: dict, value: torch.Tensor) -> bool:
    return estimate["value"] == pytest.approx(float(value), rel=1e-4)


@torch.no_grad()
def test_a_report_has_every_hook_and_all_at_once(runs: dict[str, Path], tiny_model: Path):
    clt = CrossLayerTranscoder.load(runs["clt"])
    cache, model = Cache(runs["clt"].parent / "cache"), models.load(tiny_model)
    report = evaluate(clt, cache, model)
    x_BD, y_BE = (
        torch.cat([chunk.x for chunk in cache.counted(name, "held_out")])
        for name in clt.origin.hooks
    )
    for hook, y, y_hat in zip(WRITES, y_BE.chunk(2, 1), clt(x_BD).chunk(2, 1), strict=True):
        fvu = (y - y_hat).square().sum() / (y - y.mean(0)).square().sum()
        assert near(report["hooks"][hook]["fvu"], fvu)
    assert report["references"]["identity"]["ce_recovered"]["value"] == pytest.approx(1)
    kept = report["replaced"]["ce_recovered"]  # of a model whose inputs are other ones by then
    assert kept["value"] != report["ce_recovered"]["value"]
    assert 4 < report["l0"]["value"] <= 8  # at most 4 of each of two layers

    chunk = next(cache.contexts(clt.origin.hook, "held_out"))
    splice = Splice(model, chunk.tokens, clt.origin.target, [clt.origin.hook])
    made = torch.where(chunk.counted[..., None], clt(splice.acts[clt.origin.hook]),
                       splice.acts[clt.origin.target])  # fmt: skip
    first, second = made.chunk(2, 2)
    for at, edits in (
        (None, {WRITES[0]: first, WRITES[1]: second}),
        (WRITES[0], {WRITES[0]: first}),
    ):
        ending = splice.ending(made, at)
        logits = running.logits(model, chunk.tokens, edits)
        mine = losses.compare(model, {"clean": splice.clean, "x": ending}, chunk.tokens,
                              predicting(chunk.counted))["x"].loss  # fmt: skip
        due = losses.next_token_loss(logits, chunk.tokens)[predicting(chunk.counted)[:, :-1]]
        torch.testing.assert_close(mine, due.to(mine), rtol=1e-3, atol=1e-4)


def test_the_commands_take_them_or_say_why_not(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
):
    for kind, hooks in (("clt", WRITES), ("crosscoder", WRITES)):
        options = ["--json", *(["--controls"] if kind == "clt" else [])]
        assert main(["eval", str(runs[kind]), *options]) == 0
        report = json.loads(capsys.readouterr().out)
        check(report, "report")
        assert list(report["hooks"]) == hooks
        assert all("ce_recovered" in each for each in report["hooks"].values())
    circuit = ["circuits", "--task", "ioi", "--method", "feature-circuit"]
    assert main([*circuit, "--run", str(runs["clt"])]) == 2
    assert "is a cross-layer transcoder of 2 layers" in capsys.readouterr().err
    assert main(["index", str(runs["crosscoder"]), "--json"]) == 0
    assert main(["info", str(runs["clt"]), "--verify"]) == 0
    graph = ["graph", "--prompt", "abcab", "--run"]
    assert main([*graph, str(runs["crosscoder"])]) == 2
    assert "a crosscoder has no place in the order" in capsys.readouterr().err
    assert isinstance(SAE.load(runs["crosscoder"]), SAE)


@torch.no_grad()
def test_in_the_replaced_model_each_layer_reads_its_own_run(
    runs: dict[str, Path], tiny_model: Path
):
    clt, model = CrossLayerTranscoder.load(runs["clt"]), models.load(tiny_model)
    chunk = next(Cache(runs["clt"].parent / "cache").contexts(clt.origin.hook, "held_out"))
    edits = in_turn.edits(clt, chunk.counted)
    acts = running.read(model, chunk.tokens, [*READS, *WRITES], edits)
    x_BD = torch.cat([acts[name] for name in READS], 2)[chunk.counted]
    clean = running.read(model, chunk.tokens, READS)
    assert torch.equal(acts[READS[0]], clean[READS[0]])
    assert not torch.allclose(acts[READS[1]], clean[READS[1]], atol=1e-3)
    made = torch.cat([acts[name] for name in WRITES], 2)[chunk.counted]
    torch.testing.assert_close(made, clt(x_BD), rtol=1e-4, atol=1e-5)
