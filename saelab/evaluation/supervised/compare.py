"""All tests of all dictionaries at one hook point, on one set of labelled prompts.

Shapes: P prompts, M edits, D width, V attribute values.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.evaluation.supervised import dictionary, edits, runs, scores
from saelab.evaluation.supervised.dictionary import Dictionary, Features
from saelab.evaluation.supervised.prompts import pairs
from saelab.evaluation.supervised.site import Dictionaries, Site
from saelab.statistics import over_documents, weights
from saelab.tasks import measure

# Features an edit may change; the paper's 2, 4, 6, and its figure for full-distribution SAEs.
CHANGES = (2, 4, 6, 32)
HEADLINE = 6

Progress = Callable[[str], object]


@torch.no_grad()
def evaluate(
    site: Site,
    dictionaries: Dictionaries,
    *,
    seed: int = 0,
    changes: tuple[int, ...] = CHANGES,
    headline: int = HEADLINE,
    progress: Progress | None = None,
) -> dict:
    """Fields of the `supervise` document: each score by dictionary as an Estimate, intervals
    over prompts.

    sufficiency and necessity (null: an empty dictionary), edit_agreement, edit_success and
    edit_magnitude of edits of at most `headline` features (null: no edit), f1 (null: shuffled
    labels), `edits` at every number of changes, the task's metric. Raises UsageError if the metric
    cannot be normalised, or no two test prompts differ in one attribute alone.
    """
    first = [site.test.groups.index(group) for group in dict.fromkeys(site.test.groups)]
    first = first if len(first) > 1 else list(range(len(site.test.groups)))
    weights_RP = weights(len(first), seed)
    bases = _Approximation(site, first, weights_RP)
    patches = _GroundTruth(site)
    result: dict = {
        "metric": site.test.metric,
        "metric_clean": float(bases.clean_P.mean()),
        "metric_mean": float(bases.mean_P.mean()),
        "positions": site.positions,
        "prompts": {"fit": len(site.fit.groups), "test": len(first), "edits": patches.n},
        **{
            name: {}
            for name in (
                "sufficiency",
                "necessity",
                "edit_agreement",
                "edit_success",
                "edit_magnitude",
                "f1",
            )
        },
        "edits": [],
    }
    for name, row in dictionaries.items():
        if progress:
            progress(name)
        features = {at: row[at](site.test_acts[at], site.test.labels) for at in site.positions}
        result["sufficiency"][name], result["necessity"][name] = bases.scores(features)
        result["f1"][name] = _interpretability(site, row, features, first, weights_RP, seed)
        for k in sorted({*changes, headline}):
            scores_at_k = patches.scores(features, k, seed)
            result["edits"].append({"dictionary": name, "changes": k, **scores_at_k})
            if k == headline:
                result |= {
                    score: result[score] | {name: scores_at_k[score]} for score in scores_at_k
                }
    return result


class _Approximation:
    """Test 1 on one prompt of each group."""

    def __init__(self, site: Site, first: list[int], weights_RP: np.ndarray) -> None:
        self.site, self.first, self.weights_RP = site, first, weights_RP
        self.prompts = site.test.part(first)
        self.acts = {at: acts_PD[first] for at, acts_PD in site.test_acts.items()}
        self.means = {at: acts_PD.mean(0) for at, acts_PD in site.fit_acts.items()}
        self.clean_P = self._metric(None)
        self.mean_P = self._metric(
            {at: mean_D.expand_as(self.acts[at]) for at, mean_D in self.means.items()}
        )
        scores.check_scale(self.clean_P, self.mean_P, weights_RP)

    def _metric(self, patch: runs.Patch | None) -> np.ndarray:
        logits_PV = runs.logits(self.site.model, self.prompts, self.site.hook, patch)
        return measure(self.prompts, logits_PV).double().cpu().numpy()

    def scores(self, features: dict[str, Features]) -> tuple[dict, dict]:
        """The fields of sufficiency and necessity."""
        x_hat = {
            at: features_at.reconstruction()[self.first] for at, features_at in features.items()
        }
        removed = {at: self.means[at] + self.acts[at] - x_hat[at] for at in x_hat}
        sums_PM = np.stack(
            [self.clean_P, self.mean_P, self._metric(x_hat), self._metric(removed)], 1
        )
        kinds = (scores.sufficiency, scores.necessity)
        return tuple(
            over_documents(sums_PM, kind, self.weights_RP, 0.0).as_dict() for kind in kinds
        )  # type: ignore[return-value]


class _GroundTruth:
    """Test 2: pairs of prompts, what the model predicts when the target's activations stand in the
    source, and edits' outcome."""

    def __init__(self, site: Site) -> None:
        self.site = site
        chosen = [pairs(site.test, attribute) for attribute in site.test.labels]
        self.source_M, self.target_M = (torch.cat(part) for part in zip(*chosen, strict=True))
        self.n = len(self.source_M)
        if not self.n:
            raise UsageError(
                "no two test prompts differ in one attribute alone: give counterfactuals, or "
                "fewer attributes"
            )
        self.prompts = site.test.part(self.source_M.tolist())
        self.plain_M = runs.logits(site.model, self.prompts).argmax(1).cpu()
        self.truth_M = self._predict(
            {at: acts_PD[self.target_M] for at, acts_PD in site.test_acts.items()}
        )
        self.seen: tuple[runs.Patch, Tensor] | None = None

    def _predict(self, patch: runs.Patch) -> Tensor:
        return runs.logits(self.site.model, self.prompts, self.site.hook, patch).argmax(1).cpu()

    def _outcome(self, patch: runs.Patch) -> Tensor:
        """The prediction under edits; those of a dictionary with nothing more to change are not run
        again."""
        if self.seen is None or not all(
            torch.equal(new, self.seen[0][at]) for at, new in patch.items()
        ):
            self.seen = patch, self._predict(patch)
        return self.seen[1]

    def scores(self, features: dict[str, Features], k: int, seed: int) -> dict:
        """The fields of edit_agreement, edit_success and edit_magnitude for edits of at most k
        features at each position."""
        made = {}
        for at, acts_PD in self.site.test_acts.items():
            source, target = features[at].take(self.source_M), features[at].take(self.target_M)
            made[at] = edits.greedy(
                acts_PD[self.source_M], source, target, acts_PD[self.target_M], k
            )
        outcome_M = self._outcome({at: edit.edited for at, edit in made.items()})
        magnitude_M = torch.stack([edit.magnitude for edit in made.values()]).mean(0).cpu()
        sums = self._sums(outcome_M, magnitude_M)
        nothing = self._sums(self.plain_M, torch.zeros(self.n)).sum(0)
        weights_RG = weights(len(sums), seed)
        kinds = {
            kind.__name__: kind
            for kind in (scores.edit_agreement, scores.edit_success, scores.edit_magnitude)
        }
        return {
            name: over_documents(sums, kind, weights_RG, float(kind(nothing))).as_dict()
            for name, kind in kinds.items()
        }

    def _sums(self, outcome_M: Tensor, magnitude_M: Tensor) -> np.ndarray:
        """The columns of scores.EDITS, summed over the edits of each source prompt."""
        agree_M, changed_M = outcome_M == self.truth_M, self.truth_M != self.plain_M
        columns = torch.stack(
            [torch.ones(self.n), agree_M, changed_M, agree_M & changed_M, magnitude_M], 1
        ).double()
        owners, row_M = self.source_M.unique(return_inverse=True)
        return (
            torch.zeros(len(owners), columns.shape[1], dtype=torch.float64)
            .index_add_(0, row_M, columns)
            .numpy()
        )


def _interpretability(
    site: Site,
    row: dict[str, Dictionary],
    features: dict[str, Features],
    first: list[int],
    weights_RP: np.ndarray,
    seed: int,
) -> dict:
    """Test 3: each value's best latent at any position is chosen on the fitting prompts and scored
    on the test ones."""
    values = dictionary.values_of(site.fit.labels)
    truth_PV = dictionary.one_hot(site.fit.labels, values).bool()
    test_PV = dictionary.one_hot(site.test.labels, values).bool()[first]
    on = {at: row[at](acts_PD, site.fit.labels).codes != 0 for at, acts_PD in site.fit_acts.items()}
    guesses = {at: features_at.codes[first] != 0 for at, features_at in features.items()}
    generator = torch.Generator().manual_seed(seed)
    mixed_PV = truth_PV[torch.randperm(len(truth_PV), generator=generator)]
    mixed_test_PV = test_PV[torch.randperm(len(test_PV), generator=generator)]
    null = scores.mean_f1(_guess(on, guesses, mixed_PV), mixed_test_PV, weights_RP[:2]).value
    return scores.mean_f1(_guess(on, guesses, truth_PV), test_PV, weights_RP, null).as_dict()


def _guess(on: dict[str, Tensor], guesses: dict[str, Tensor], truth_PV: Tensor) -> Tensor:
    """[P, V] bool: what each value's best latent at its best position says of the test prompts."""
    best_at = {at: scores.best_latents(on_PF, truth_PV) for at, on_PF in on.items()}
    position_V = torch.stack([best.f1 for best in best_at.values()]).argmax(0)
    said_XPV = torch.stack([guesses[at][:, best.latent] for at, best in best_at.items()])
    return said_XPV.gather(0, position_V.expand(1, said_XPV.shape[1], -1))[0].cpu()
