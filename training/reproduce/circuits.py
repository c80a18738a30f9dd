"""O'Neill and Bui 2024, "Sparse autoencoders enable scalable and reliable circuit identification":
discrete codes on three tasks, and on a program whose circuit is known by construction.

Their numbers are of GPT-2 small and attn-only-4l against published circuits (results file of their
code: 10 trials); ours are of the bundled model against heads whose resampling moves the metric by
5%, measured exhaustively. The compiled program is no task of theirs: codes should rank its heads
above the decoys, an AUC above 0.5. Nothing is tuned on a truth: latents, sparsity, steps and
examples are the paper's, which searched for theirs on the answer. `raw` is the method as published;
`centred` takes each head's mean output away first, which is our change. Heads whose codes vary more
show more of them on one side by chance: `mixed` deals prompts and twins out anew, half of each to a
side, so that nothing but that is left.

Shapes: P prompts, L layers, H heads of a layer, K heads of all layers in order, D width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab import models
from saelab.analysis.circuits import Task, score, task
from saelab.analysis.circuits.heads import codes
from saelab.analysis.circuits.heads.ablation import setting
from saelab.analysis.circuits.heads.agreement import agreement, layer_index_auc
from saelab.analysis.circuits.heads.codes import EXAMPLES, Codes, head_outputs, only_in_clean
from saelab.analysis.circuits.heads.known import LEVEL, measured
from saelab.analysis.circuits.planted import compile_program, compiled_task, induction
from saelab.statistics import over_seeds

from . import data
from .claims import Claim, Settings, judge, seeds_claim

COMPILED = "compiled induction"
THEIRS = {
    "ioi": (0.868, 0.840),
    "greater-than": (0.855, 0.873),
    "docstring": (0.869, 0.896),
    COMPILED: (None, None),
}  # node scores, votes of pairs
CHANCE = 0.5


class Form(NamedTuple):
    """How much is measured: seeds; prompts of each kind whose codes are read; held-out prompts of
    the truth; numbers of SAE examples, ascending, of which the paper finds fewer better."""

    seeds: int
    prompts: int
    held_out: int
    examples: tuple[int, ...]


FULL, QUICK = Form(5, 250, 100, (5, EXAMPLES, 100)), Form(3, 30, 16, (EXAMPLES,))


class Case(NamedTuple):
    """One task: its name, the model, the circuit's heads [L, H] bool, and what draws `n` prompts
    with `seed`."""

    name: str
    model: Any
    members_LH: Tensor
    draw: Callable[..., Task]


class Found(NamedTuple):
    """AUCs of one seed: of node scores and of votes, raw; of votes, centred; of node scores,
    centred and mixed; EAP-IG's; of centred node scores with each number of SAE examples."""

    raw: float
    raw_votes: float
    centred_votes: float
    mixed: float
    eap_ig: float
    centred: list[float]


def claims(settings: Settings) -> list[Claim]:
    """Per task: the paper's AUCs, and whether codes say more than the layer's number or attribution
    does."""
    form, all_claims = QUICK if settings.quick else FULL, []
    for number, name in enumerate(THEIRS):
        settings.progress("circuits", number, len(THEIRS))
        case = compiled(settings) if name == COMPILED else bundled(settings, name, form.held_out)
        all_claims += of_case(case, form, settings.seed)
    settings.progress("circuits", len(THEIRS), len(THEIRS))
    return all_claims


def bundled(settings: Settings, name: str, held_out: int) -> Case:
    """A task of the bundled model; its circuit is measured on that many held-out prompts."""
    model = data.model(settings)
    draw = partial(task, name, model)
    known = measured(setting(model, draw(held_out, settings.seed, "held-out")))
    return Case(name, model, known.levels[LEVEL][0], draw)


def compiled(settings: Settings) -> Case:
    """The induction program, compiled into the work folder."""
    program = induction()
    true = compile_program(program, settings.work / f"planted-{program.name}")
    model = models.load(true.folder, settings.device, dtype=settings.model_dtype)
    return Case(COMPILED, model, true.heads, partial(compiled_task, program, model))


def of_case(case: Case, form: Form, seed: int) -> list[Claim]:
    """The claims of one task."""
    runs = [_one(case, form, seed + number) for number in range(form.seeds)]
    columns = Found(*map(list, zip(*runs, strict=True)))  # type: ignore[arg-type]
    by_examples = dict(zip(form.examples, zip(*columns.centred, strict=True), strict=True))
    centred, most = by_examples[EXAMPLES], form.examples[-1]
    by_layer = layer_index_auc(case.members_LH)
    name, (node, edge) = case.name, THEIRS[case.name]
    return [
        _level(f"{name}: AUC of node codes, raw", node, columns.raw),
        _level(f"{name}: AUC of pair votes, raw", edge, columns.raw_votes),
        _level(f"{name}: AUC of node codes, centred", node, centred),
        _level(f"{name}: AUC of pair votes, centred", edge, columns.centred_votes),
        _above(
            f"{name}: centred node codes above the layer's number ({by_layer:.3f})",
            centred,
            [by_layer] * form.seeds,
        ),
        _above(f"{name}: centred node codes above EAP-IG", centred, columns.eap_ig),
        _above(f"{name}: centred node codes above mixed ones", centred, columns.mixed),
        *(
            _above(
                f"{name}: {few} SAE examples above {most}",
                by_examples[few],
                by_examples[most],
                "fewer are better",
            )
            for few in form.examples[:-1]
        ),
    ]


def _level(claim: str, theirs: float | None, values: Any) -> Claim:
    """Whether our mean AUC, whose interval is cut to [0, 1], reaches theirs, or else chance."""
    ours = over_seeds(values).cut(0, 1)
    if theirs is None:
        return Claim(claim, f"not reported (above {CHANCE})", ours, judge(ours, above=CHANCE))
    return Claim(claim, f"{theirs:.3f}", ours, judge(ours, above=theirs))


def _above(claim: str, values: Any, others: Any, theirs: str = "not compared") -> Claim:
    return seeds_claim(
        claim, theirs, [a - b for a, b in zip(values, others, strict=True)], above=0.0
    )


def _one(case: Case, form: Form, seed: int) -> Found:
    """One seed: fresh prompts, fresh SAEs."""
    drawn = case.draw(n=form.prompts, seed=seed)
    both_PKD = head_outputs(case.model, torch.cat([drawn.clean, drawn.corrupted]))
    moved_PKD = both_PKD - both_PKD.mean(0)
    raw = _codes(both_PKD, EXAMPLES, seed)
    centred = {examples: _codes(moved_PKD, examples, seed) for examples in form.examples}
    usual, first = centred[EXAMPLES], drawn.part(slice(0, 8))
    scores = [only_in_clean(raw), _votes(raw), _votes(usual), only_in_clean(_mixed(usual))]
    scores += [score(case.model, first, "eap-ig").heads, *map(only_in_clean, centred.values())]
    aucs = [_auc(each, case.members_LH) for each in scores]
    return Found(*aucs[:5], centred=aucs[5:])


def _codes(both_PKD: Tensor, examples: int, seed: int) -> Codes:
    """Of prompts and then as many twins, by an SAE of that many examples of either."""
    drawn = torch.randperm(len(both_PKD), generator=torch.Generator().manual_seed(seed))[:examples]
    sae = codes.train(both_PKD[drawn].flatten(0, 1), seed)
    return Codes(*codes.code_of(sae, both_PKD).chunk(2))


def _mixed(task_codes: Codes) -> Codes:
    both_PK = torch.cat(task_codes)
    return Codes(both_PK[::2], both_PK[1::2])


def _votes(task_codes: Codes) -> Tensor:
    return codes.votes(codes.pairs_only_in_clean(task_codes))


def _auc(scores: Tensor, members_LH: Tensor) -> float:
    auc = agreement(scores.view(members_LH.shape), members_LH).auc
    return float("nan") if auc is None else auc
