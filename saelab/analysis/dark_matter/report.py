"""The dark-matter report: SAEs' errors over a cache, their linear and nonlinear parts, and what
each costs the model.

Fitted on training tokens, scored on held-out ones, in memory that does not grow with the cache.
Shapes: C contexts, T positions, N tokens, D width, G documents, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab import models
from saelab.activations import Cache, Contexts
from saelab.analysis.dark_matter import decomposition, linear
from saelab.analysis.dark_matter.across_runs import scaling
from saelab.analysis.dark_matter.decomposition import Map, Totals
from saelab.errors import UsageError
from saelab.evaluation import controls
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.sae import SAE
from saelab.statistics import DocumentSums, over_documents, weights
from saelab.statistics.bootstrap import total

BATCH = 8192  # tokens fitted at a time
CONTEXTS = 16  # contexts scored at a time
CONTROL_TOKENS = 100_000  # the controls' maps are fitted on no more
CONTROLS = ("dead", "shrunk", "permuted", "random_init")
LOSSES = (
    "predictions",
    "clean",
    "spliced",
    "linear",
    "nonlinear",
    "noise_linear",
    "noise_nonlinear",
)
Progress = Callable[[int], None]


class Subject:
    """One SAE under study: its reconstructions, the sums its maps are fitted from, and what its
    scored tokens add up to."""

    def __init__(self, sae: SAE, untrained: SAE, hook: str, seed: int) -> None:
        self.sae, self.hook = sae, hook
        self.random = torch.Generator().manual_seed(seed)
        self.untrained = untrained
        self.own = linear.Sums(sae.d_model, sae.d_model + 1)
        self.controls = linear.Sums(sae.d_model, len(CONTROLS) * (sae.d_model + 1))
        self.maps: dict[str, Map] = {}
        self.sums = {name: DocumentSums() for name in ("sae", *CONTROLS)}
        self.losses = DocumentSums()
        self.norms: list[Tensor] = []

    def control_errors(self, x_ND: Tensor, error_ND: Tensor) -> Iterator[Tensor]:
        """Errors whose scores are known in advance, in the order of CONTROLS: a dead SAE's and a
        perfect one's shrunk by a fifth

        are linear in x, an error that belongs to other tokens is not; and that of an SAE that was
        never trained.
        """
        yield x_ND - self.sae.b_dec
        yield x_ND * 0.2
        yield error_ND[torch.randperm(len(error_ND), generator=self.random)]
        yield x_ND - self.untrained(x_ND)

    def add(self, x_ND: Tensor) -> None:
        """Add fitting tokens."""
        error_ND = x_ND - self.sae(x_ND)
        self.own.add(x_ND, decomposition.targets(error_ND))
        if self.controls.n < CONTROL_TOKENS:
            errors = self.control_errors(x_ND, error_ND)
            self.controls.add(x_ND, torch.cat([decomposition.targets(e) for e in errors], 1))

    def solve(self, ridge: float) -> None:
        """Fit the maps. Raises UsageError for too few tokens."""
        self.maps["sae"] = decomposition.split(linear.solve(self.own, ridge=ridge))
        whole = linear.solve(self.controls, ridge=ridge)
        for i, name in enumerate(CONTROLS):
            part = slice(i * (self.sae.d_model + 1), (i + 1) * (self.sae.d_model + 1))
            self.maps[name] = decomposition.split(
                whole._replace(weight=whole.weight[:, part], bias=whole.bias[part])
            )

    def score(self, x_ND: Tensor, owners_N: Tensor) -> tuple[Tensor, Tensor]:
        """Add scored tokens; the error and its linear part."""
        error_ND = x_ND - self.sae(x_ND)
        for name, e_ND in zip(
            ("sae", *CONTROLS), (error_ND, *self.control_errors(x_ND, error_ND)), strict=True
        ):
            map = self.maps[name]
            self.sums[name].add(
                owners_N, decomposition.columns(x_ND, e_ND, map.error(x_ND), map.norm(x_ND))
            )
        linear_ND = self.maps["sae"].error(x_ND)
        self.norms.append(
            torch.stack([error_ND.norm(dim=1), (error_ND - linear_ND).norm(dim=1)], 1)
        )
        return error_ND, linear_ND

    def replacements(self, x_ND: Tensor, error_ND: Tensor, linear_ND: Tensor) -> dict[str, Tensor]:
        """What the model sees in x's place, by name of LOSSES: x_hat alone, with one part of the
        error, or with noise as long."""
        x_hat_ND, parts = x_ND - error_ND, {"linear": linear_ND, "nonlinear": error_ND - linear_ND}
        noise_ND = torch.nn.functional.normalize(
            torch.randn(x_ND.shape, generator=self.random), dim=1
        )
        noises = {
            f"noise_{name}": noise_ND * part.norm(dim=1, keepdim=True)
            for name, part in parts.items()
        }
        return {"spliced": x_hat_ND} | {
            name: x_hat_ND + part for name, part in (parts | noises).items()
        }


@torch.no_grad()
def analyse(
    saes: Mapping[str, SAE],
    cache: Cache,
    model: Any,
    *,
    n_tokens: int = 500_000,
    n_held_out: int = 50_000,
    ridge: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict:
    """The fields of the `dark-matter` document for SAEs by name: `runs`, and `scaling` across them.

    n_tokens: training tokens the maps are fitted on, at most; n_held_out: tokens they are scored
    on, at most; ridge: see `linear.solve`. The model's loss is measured with x_hat, with either
    part of the error added back, and with noise of that part's length. progress(tokens done).
    Raises UsageError for an SAE of another width than the cache, a transcoder, too few tokens, or
    no held-out documents.
    """
    subjects = {}
    for name, sae in saes.items():
        hook = _checked(name, sae, cache, model)
        subjects[name] = Subject(sae, controls.untrained(sae, cache, seed), hook, seed)
    n_read = _fit(
        list(subjects.values()), cache, n_tokens, ridge, seed, progress or (lambda n: None)
    )
    owners_N = _score(
        list(subjects.values()),
        cache,
        model,
        n_held_out,
        lambda n: progress and progress(n_read + n),
    )
    runs = [_fields(name, subject, seed) for name, subject in subjects.items()]
    tables = [subject.sums["sae"].table() for subject in subjects.values()]
    norms = [torch.cat(subject.norms) for subject in subjects.values()]
    return {"runs": runs, "scaling": scaling(runs, tables, norms, owners_N, seed)}


def _checked(name: str, sae: SAE, cache: Cache, model: Any) -> str:
    """The SAE's hook as the cache calls it. Raises UsageError for an SAE that this cache or model
    cannot measure."""
    hook = cache.resolve(sae.origin.hook)
    if sae.transcoder or sae.origin.target != sae.origin.hook:
        raise UsageError(
            f"{name} is a transcoder: dark matter is what an autoencoder misses of its own input"
        )
    if cache.width(hook) != sae.d_model:
        raise UsageError(
            f"{name} has d_model={sae.d_model}, {hook} of the cache {cache.width(hook)}: use a "
            "cache of its model"
        )
    models.resolve_hook(model, hook)
    return hook


def _fit(
    subjects: list[Subject],
    cache: Cache,
    n_tokens: int,
    ridge: float,
    seed: int,
    progress: Progress,
) -> int:
    """Fit every subject's maps on shuffled training tokens; how many were read."""
    available = min(n_tokens, cache.n_tokens("train"))
    size = min(BATCH, available)
    stream = cache.batches(sorted({subject.hook for subject in subjects}), size, seed)
    for number in range(available // size):
        x = next(stream)
        for subject in subjects:
            subject.add(x[subject.hook])
        progress((number + 1) * size)
    for subject in subjects:
        subject.solve(ridge)
    return available // size * size


def _score(
    subjects: list[Subject], cache: Cache, model: Any, n_tokens: int, progress: Callable[[int], Any]
) -> Tensor:
    """Score every subject on held-out contexts; the document of each token read [N]."""
    hooks = sorted({subject.hook for subject in subjects})
    owners: list[Tensor] = []
    for chunks in zip(*(cache.contexts(hook, "held_out") for hook in hooks), strict=True):
        for first in range(0, len(chunks[0].tokens), CONTEXTS):
            if sum(map(len, owners)) >= n_tokens:
                return torch.cat(owners)
            part = slice(first, first + CONTEXTS)
            acts = {hook: chunk.acts[part] for hook, chunk in zip(hooks, chunks, strict=True)}
            shared = chunks[0].part(part)
            owners.append(shared.documents[shared.counted])
            _score_contexts(subjects, model, acts, shared)
            progress(sum(map(len, owners)))
    if not owners:
        raise UsageError("the cache has no held-out contexts to score on: capture more tokens")
    return torch.cat(owners)


def _score_contexts(
    subjects: list[Subject],
    model: Any,
    acts: dict[str, Tensor],
    shared: Contexts,
) -> None:
    """acts: of the contexts `shared`, at every subject's hook."""
    tokens_CT, _, owners_CT, counted_CT = shared
    splices = {hook: Splice(model, tokens_CT, hook) for hook in acts}
    owners_N, owners_P = owners_CT[counted_CT], owners_CT[predicting(counted_CT)]
    for subject in subjects:
        x_CTD = acts[subject.hook]
        x_ND = x_CTD[counted_CT]
        error_ND, linear_ND = subject.score(x_ND, owners_N)
        replaced = {}
        for name, replacement_ND in subject.replacements(x_ND, error_ND, linear_ND).items():
            replaced[name] = x_CTD.clone()
            replaced[name][counted_CT] = replacement_ND
        compared = spliced(splices[subject.hook], replaced, counted_CT)
        losses = {name: each.loss for name, each in compared.items()}
        predictions_P = torch.ones_like(losses["clean"])
        subject.losses.add(owners_P, {"predictions": predictions_P, **losses})


# --- the numbers --------------------------------------------------------------------------------


def cross_entropy(losses: Totals, name: str) -> np.ndarray:
    """Mean next-token cross-entropy in nats, of sums [...] by name of LOSSES."""
    return losses[name] / losses["predictions"]


def ce_share(losses: Totals, name: str) -> np.ndarray:
    """(CE_spliced - CE_name) / (CE_spliced - CE_clean): the share of the SAE's cost that adding a
    part of its error back undoes.

    0 where the SAE costs nothing.
    """
    cost = cross_entropy(losses, "spliced") - cross_entropy(losses, "clean")
    saved = cross_entropy(losses, "spliced") - cross_entropy(losses, name)
    return np.where(cost == 0, 0.0, saved / np.where(cost == 0, 1, cost))


def ce_proportion(sums: Totals) -> np.ndarray:
    """The nonlinear error's share of the SAE's cost in loss over its share of the error's sum of
    squares; 1 is proportional.

    Its share of the cost is what stays when the linear part is added back. sums: by name of
    `columns` and of LOSSES.
    """
    return (1 - ce_share(sums, "linear")) / decomposition.share(sums, "nonlinear")


def _fields(name: str, subject: Subject, seed: int) -> dict:
    """One run's entry."""
    documents = subject.sums["sae"].documents
    weights_RG = weights(len(documents), seed)
    sums, losses = subject.sums["sae"].table(), subject.losses.table(documents)
    fields = _scores(sums, subject.maps["sae"], weights_RG)
    for part in ("linear", "nonlinear"):
        null = float(ce_share(total(losses), f"noise_{part}"))
        for score, table, measure, chance in (
            ("fvu", sums, decomposition.fvu, None),
            ("share", sums, decomposition.share, None),
            ("ce_share", losses, ce_share, null),
        ):
            of_part = partial(_of_part, measure, part)
            fields[f"{score}_{part}"] = over_documents(table, of_part, weights_RG, chance).as_dict()
    proportion = over_documents(sums | losses, ce_proportion, weights_RG, 1.0)
    fields["ce_proportion"] = proportion.as_dict()
    controls = {
        name: _scores(subject.sums[name].table(), subject.maps[name], weights_RG)
        for name in CONTROLS
    }
    return {
        "run": name,
        "hook": subject.hook,
        "n_features": subject.sae.n_features,
        "k": subject.sae.origin.k,
        "sparsify": subject.sae.origin.sparsify,
        **fields,
        "linear_r2_null": subject.maps["sae"].error.null,
        **{f"ce_{which}": float(cross_entropy(total(losses), which)) for which in LOSSES[1:]},
        "controls": controls,
        "tokens_fitted": subject.own.n,
        "tokens": int(sums["tokens"].sum()),
        "documents": len(documents),
    }


def _scores(sums: Totals, map: Map, weights_RG: np.ndarray) -> dict[str, dict]:
    """The scores that runs and controls share."""
    scores = {
        "linear_r2": (decomposition.r2, map.error.null),
        "linear_r2_dimensions": (_mean_r2_dimensions, map.error.null),
        "norm_r2": (decomposition.norm_r2, map.error.null),
        "fvu": (decomposition.fvu, 1.0),
    }
    return {
        name: over_documents(sums, statistic, weights_RG, null).as_dict()
        for name, (statistic, null) in scores.items()
    }


def _of_part(measure: Callable, part: str, sums: Totals) -> np.ndarray:
    return measure(sums, part)


def _mean_r2_dimensions(sums: Totals) -> np.ndarray:
    return decomposition.r2_dimensions(sums).mean(-1)
