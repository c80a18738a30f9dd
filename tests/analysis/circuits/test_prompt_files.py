"""EAP and EAP-IG on ready-made prompt files, against patches that a loop of this file makes on
Hugging Face's own model, where paths are linear.

Shapes: P prompts, T positions, D width, H heads, E width of a head, V vocabulary.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saelab import models
from saelab.analysis.circuits.heads import attribution_patching as attribution
from saelab.analysis.circuits.heads.stream import named
from saelab.tasks import Task, files

FILES = (
    "ioi_llama.csv",
    "greater_than_data.csv",
    *(f"{kind}_{split}.json" for kind in ("simple", "nounpp") for split in ("train", "test")),
)
LAST, HEADS, WIDTH = 1, 4, 8
FLAT = 1e12  # what a norm adds to the variance: beside it the activations' own is nothing


def made(assets: Path, folder: Path, linear: bool) -> Path:
    """A random model of two layers that reads with GPT-2's tokenizer; linear: its norms and MLPs
    are, and attention patterns alone are not."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(assets / "gpt2_tokenizer")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=32,
        n_embd=HEADS * WIDTH,
        n_layer=2,
        n_head=HEADS,
        activation_function="linear" if linear else "gelu_new",
        layer_norm_epsilon=FLAT if linear else 1e-5,
    )
    model = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        parameter.data *= FLAT**0.5 if linear and "ln_" in name else 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> tuple[Any, Any]:
    """The model as the library runs it, and Hugging Face's own in double precision."""
    from transformers import GPT2LMHeadModel

    own = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
    return models.load(folder), own.double().eval()


@pytest.fixture(scope="module")
def linear(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return loaded(made(assets, tmp_path_factory.mktemp("models") / "linear", linear=True))


def run_by_hand(model, tokens_PT: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What each writer adds to the stream [P, T, D], and what modules were given."""
    given: dict[str, Tensor] = {}
    body = model.transformer
    modules = {"norm": body.ln_f, "last": body.h[LAST].ln_1, "start": body.h[0]}
    modules |= {f"z{n}": block.attn.c_proj for n, block in enumerate(body.h)}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: given.update({name: args[0]}))
        for name, module in modules.items()
    ]
    handles += [
        block.mlp.register_forward_hook(lambda *of, name=f"m{n}": given.update({name: of[2]}))
        for n, block in enumerate(body.h)
    ]
    with torch.no_grad():
        found = model(tokens_PT, output_attentions=True)
    for handle in handles:
        handle.remove()
    written = {"embed": given["start"], "m0": given["m0"], "m1": given["m1"]}
    for n, block in enumerate(body.h):
        by_head_PTHE = given[f"z{n}"].unflatten(2, (HEADS, WIDTH))
        rows_HED = block.attn.c_proj.weight.unflatten(0, (HEADS, WIDTH))
        for head in range(HEADS):
            written[f"a{n}.h{head}"] = by_head_PTHE[:, :, head] @ rows_HED[head]
    return written, given | {"pattern": found.attentions[LAST]}


def _mean(logits_PV: Tensor, ids_PA: Tensor) -> Tensor:
    """The mean logit of each prompt's answers."""
    rows = zip(logits_PV, ids_PA, strict=True)
    return torch.stack([row_V[ids_A[ids_A >= 0]].mean() for row_V, ids_A in rows])


@torch.no_grad()
def patched(model: Any, task: Task) -> dict[tuple[str, str], float]:
    """m(clean) - m(patched) of every edge into the logits, the last MLP and the values of the last
    layer, each patch made by itself."""
    (clean, seen), (corrupted, _) = (
        run_by_hand(model, tokens_PT) for tokens_PT in (task.clean, task.corrupted)
    )
    block, end_PTD = model.transformer.h[LAST], seen["norm"]
    mid_PTD = end_PTD - clean[f"m{LAST}"]

    def metric(end_PTD: Tensor) -> float:
        logits_PV = model.lm_head(model.transformer.ln_f(end_PTD[:, -1]))
        right_P, wrong_P = (_mean(logits_PV, ids) for ids in (task.right, task.wrong))
        return float((right_P - wrong_P).mean())

    def mlp(mid_PTD: Tensor) -> Tensor:
        return block.mlp(block.ln_2(mid_PTD))

    def values(stream_PTD: Tensor) -> Tensor:
        return block.attn.c_attn(block.ln_1(stream_PTD))[:, :, -HEADS * WIDTH :]

    whole, scores = metric(end_PTD), {}
    rows_HED = block.attn.c_proj.weight.unflatten(0, (HEADS, WIDTH))
    for writer, acts_PTD in clean.items():
        change_PTD = acts_PTD - corrupted[writer]
        scores[writer, "logits"] = whole - metric(end_PTD - change_PTD)
        if writer != f"m{LAST}":
            scores[writer, f"m{LAST}"] = whole - metric(mid_PTD + mlp(mid_PTD - change_PTD))
        if writer.startswith((f"a{LAST}", f"m{LAST}")):
            continue
        moved_PTE = values(seen["last"] - change_PTD) - values(seen["last"])
        for head in range(HEADS):
            own_PTE = moved_PTE[:, :, head * WIDTH : (head + 1) * WIDTH]
            new_PTD = mid_PTD + seen["pattern"][:, head] @ own_PTE @ rows_HED[head]
            scores[writer, f"a{LAST}.h{head}.v"] = whole - metric(new_PTD + mlp(new_PTD))
    return scores


def off(pair: tuple[Any, Any], file: Path) -> list[float]:
    """How far EAP and EAP-IG are from the patches, in units of the largest."""
    model, own = pair
    task = files.read(file, model, n=4)
    # Probabilities are not linear in the logits.
    task = task._replace(metric="logit_difference")
    exact = patched(own, task)
    assert len(exact) == 11 + 10 + 6 * HEADS
    largest, far = max(map(abs, exact.values())), []
    for points in (attribution.CLEAN, attribution.between("midpoint", 2)):
        scores_UR = attribution.edge_scores(model, task, points).mean(0)
        found = {edge[:2]: edge.score for edge in named(model, scores_UR)}
        # Between the twins attention looks elsewhere: what goes through it is linear at the clean
        # run's pattern alone.
        edges = [edge for edge in exact if points == attribution.CLEAN or edge[1][0] != "a"]
        far.append(max(abs(found[edge] - exact[edge]) for edge in edges) / largest)
    return far


@pytest.mark.parametrize("file", FILES)
def test_on_linear_paths_attribution_is_patching(linear: Any, assets: Path, file: str):
    assert max(off(linear, assets / "circuit_prompts" / file)) < 1e-4


def test_on_other_paths_it_is_not(assets: Path, tmp_path: Path):
    bent = made(assets, tmp_path / "bent", linear=False)
    assert min(off(loaded(bent), assets / "circuit_prompts" / FILES[2])) > 1e-2
