"""The site of a comparison: a hook with prompts, on which supervised dictionaries, an SAE
and controls of its shape are held to each other.

Shapes: P prompts, D width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.evaluation import controls
from saelab.evaluation.supervised import dictionary, runs
from saelab.evaluation.supervised.dictionary import Dictionary, Features
from saelab.models import resolve_hook
from saelab.sae import SAE
from saelab.tasks import Task
from saelab.token_norm import check_additive

FROZEN_STEPS, FROZEN_BATCH = 200, 512

Dictionaries = dict[str, dict[str, Dictionary]]  # name -> position -> dictionary


class Site(NamedTuple):
    """Where dictionaries are compared: the hook, the prompts to fit and to test on, and their
    activations by position."""

    model: Any
    hook: str
    fit: Task
    test: Task
    fit_acts: runs.Patch
    test_acts: runs.Patch

    @property
    def positions(self) -> list[str]:
        """The edited positions."""
        return list(self.fit_acts)


def visit(model: Any, hook: str, fit: Task, test: Task, positions: list[str] | None = None) -> Site:
    """Run the model and keep what the tests need. positions: default all that the prompts name.

    Raises UsageError for an unknown hook or position.
    """
    names = positions or list(fit.positions)
    if unknown := [name for name in names if name not in fit.positions]:
        raise UsageError(
            f"no position {', '.join(map(repr, unknown))}; these prompts have "
            f"{', '.join(fit.positions)}"
        )
    resolve_hook(model, hook)  # an unknown one is refused before anything runs
    fit_acts, test_acts = (runs.collect(model, prompts, hook, names) for prompts in (fit, test))
    return Site(model, hook, fit, test, fit_acts, test_acts)


def of_sae(sae: SAE) -> Dictionary:
    """An SAE as a dictionary, which looks at no label. Raises UsageError for one that normalises
    each token."""
    check_additive(sae.token_norm)

    @torch.no_grad()
    def say(acts_PD: Tensor, labels: dictionary.Labels) -> Features:
        codes_PF = sae.encode(acts_PD.to(sae.W_enc)).to_dense()
        return Features(codes_PF, sae.W_dec.detach(), sae.b_dec.detach())

    return say


def supervised(site: Site, how: dictionary.How = "least-squares") -> dict[str, Dictionary]:
    """The supervised dictionary of each position."""
    return {
        name: dictionary.fit(acts_PD, site.fit.labels, how)
        for name, acts_PD in site.fit_acts.items()
    }


def everywhere(site: Site, sae: SAE) -> dict[str, Dictionary]:
    """The same SAE at each position. Raises UsageError for an SAE of another width and for a
    transcoder."""
    width = next(iter(site.fit_acts.values())).shape[1]
    if sae.d_model != width or sae.transcoder:
        what = "is a transcoder" if sae.transcoder else f"has d_model={sae.d_model}"
        raise UsageError(
            f"the SAE {what}; wanted is an autoencoder of {site.hook}, whose width is {width}"
        )
    return dict.fromkeys(site.positions, of_sae(sae))


@torch.no_grad()
def with_controls(site: Site, sae: SAE, seed: int = 0, trained: SAE | None = None) -> Dictionaries:
    """`supervised` (least squares), `supervised_mean` (class means), `sae`, and the controls of its
    shape.

    frozen_decoder: random rows, encoder fitted to this task's activations; random_init: not trained
    at all; frozen_trained, where it is given: random rows, encoder trained as the SAE's was.
    """
    rows = {
        "supervised": supervised(site),
        "supervised_mean": supervised(site, "mean"),
        "sae": everywhere(site, sae),
    }
    pooled = torch.cat(list(site.fit_acts.values())).to(sae.W_enc)
    l0 = float(
        (sae.encode(pooled[:: max(1, len(pooled) // 2000)]).to_dense() != 0).sum(1).float().mean()
    )
    generator = torch.Generator().manual_seed(seed)
    batches = (
        pooled[torch.randint(len(pooled), (FROZEN_BATCH,), generator=generator)]
        for _ in range(FROZEN_STEPS)
    )
    with torch.enable_grad():
        frozen = controls.frozen_decoder(
            sae, batches, n_steps=FROZEN_STEPS, rate=3e-3, seed=seed, l0=l0
        )
    rows["frozen_decoder"] = everywhere(site, frozen)
    rows["random_init"] = everywhere(site, controls.random_init(sae, seed, l0))
    if trained is not None:
        rows["frozen_trained"] = everywhere(site, trained)
    return rows
