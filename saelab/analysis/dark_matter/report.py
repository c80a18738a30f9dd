"""The dark-matter report: SAEs' errors over a cache, their linear and nonlinear parts, and what
each costs the model.

Fitted on training tokens, scored on held-out ones, in memory that does not grow with the cache.
Shapes: C contexts, T positions, N tokens, D width, G documents, R resamples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from saelab import models
from saelab.activations import Cache, Contexts
from saelab.analysis.dark_matter.across_runs import scaling
from saelab.analysis.dark_matter.decomposition import Map
from saelab.analysis.dark_matter.fields import fields
from saelab.analysis.dark_matter.subject import Subject
from saelab.errors import UsageError
from saelab.evaluation import controls
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.models import heads
from saelab.sae import SAE

BATCH = 8192  # tokens fitted at a time
CONTEXTS = 16  # contexts scored at a time
Progress = Callable[[int], None]


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
    keep: Callable[[str, Map], None] | None = None,
) -> dict:
    """The fields of the `dark-matter` document for SAEs by name: `runs`, and `scaling` across them.

    n_tokens: training tokens the maps are fitted on, at most; n_held_out: tokens they are scored
    on, at most; ridge: see `linear.solve`. The model's loss is measured with x_hat, with either
    part of the error added back, and with noise of that part's length. progress(tokens done).
    keep(name, map): is given each SAE's linear map, which `error_split` of a prompt goes by.
    Raises UsageError for an SAE of another width than the cache, a transcoder, too few tokens, no
    held-out documents, or a model that predicts no tokens.
    """
    heads.refuse_without_losses(model)
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
    if keep:
        for name, subject in subjects.items():
            keep(name, subject.maps["sae"])
    runs = [fields(name, subject, seed) for name, subject in subjects.items()]
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
        x_CTD = acts[subject.hook].to(subject.sae.W_enc)
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
