"""What single features tell of kinds of Python tokens, and do when they are added, beside the
difference in means, which is told the labels.

Telling: average precision of the feature chosen on training tokens, on held-out ones. Doing: the
cross-entropy to what follows tokens of the kind that is saved where its direction is added to other
tokens, all directions at one norm. Means over kinds. Shapes: N tokens, D width, F features, K
kinds, C contexts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.evaluation import concepts, labelled, probing
from saelab.evaluation.alignment import Labelled, align, enough
from saelab.evaluation.concepts import Positions

from . import data, steering
from .claims import Settings
from .compare import HOOK

WORDS = {"ap": "average precision of single features", "steer": "nats that single features steer"}
SPLITS = ("train", "held_out")
SIZES, QUICK = (6_000, 4_000), (2_000, 1_000)  # tokens: to choose features on, to score them


class Tasks(NamedTuple):
    """Labelled activations, and contexts to steer."""

    train: Positions
    held_out: Positions
    kinds: steering.Kinds
    model: Any
    norm: float
    """of what is added"""

    @classmethod
    def of(cls, settings: Settings, cache: Cache) -> "Tasks":
        """Of the Python files in a cache."""
        model, sizes = data.model(settings), QUICK if settings.quick else SIZES
        at = cache, HOOK, model.tokenizer
        train, held_out = (
            concepts.of_text(*at, split, n) for split, n in zip(SPLITS, sizes, strict=True)
        )
        seen, others = (
            labelled.python_contexts(*at, split, n) for split, n in zip(SPLITS, sizes, strict=True)
        )
        kinds = steering.kinds(model, seen, others, settings.seed)
        return cls(train, held_out, kinds, model, steering.norm_of(train.x))

    def of_saes(self, saes: Sequence[SAE]) -> dict[str, list[float]]:
        """WORDS of each dictionary."""
        found = [self._of(sae) for sae in saes]
        return {number: [each[number] for each in found] for number in WORDS}

    def _of(self, sae: SAE) -> dict[str, float]:
        train, held_out = (
            Labelled(probing.latents(sae, part.x), part.labels, part.owners)
            for part in (self.train, self.held_out)
        )
        found = align(train, held_out, self.train.names, resamples=2, shuffles=0)
        rows_KD = torch.zeros(len(self.train.names), sae.d_model)
        for one in found.concepts:
            row = self.train.names.index(one.name)
            rows_KD[row] = one.side * sae.W_dec.detach()[one.feature].cpu()
        return {"ap": float(found.precision.value or 0.0), "steer": self._steered(rows_KD)}

    def of_means(self) -> dict[str, float]:
        """WORDS of each kind's own direction: from the mean of the tokens that are not of it to the
        mean of those that are."""
        from sklearn.metrics import average_precision_score

        train, held_out = self.train, self.held_out
        rows_KD = torch.zeros(len(train.names), train.x.shape[1])
        precisions = []
        for kind in range(len(train.names)):
            if not enough(train.labels[:, kind], held_out.labels[:, kind]):
                continue
            is_N = torch.from_numpy(train.labels[:, kind])
            rows_KD[kind] = train.x[is_N].mean(0) - train.x[~is_N].mean(0)
            along_N = held_out.x @ rows_KD[kind]
            precisions.append(average_precision_score(held_out.labels[:, kind], along_N))
        return {"ap": float(np.mean(precisions)), "steer": self._steered(rows_KD)}

    def _steered(self, rows_KD: Tensor) -> float:
        return self.kinds.gained(rows_KD, self.model, HOOK, self.norm)
