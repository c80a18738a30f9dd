"""A linear probe on all dimensions at once, for many concepts together.

Shapes: P positions, D width, C concepts.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEPS = 60  # of L-BFGS
RIDGE = 1e-6  # of squared weights, on standardised inputs
Probe = Callable[[Tensor], NDArray[np.float32]]


def fitted(x_PD: Tensor, labels_PC: NDArray[np.bool_], steps: int = STEPS) -> Probe:
    """Logistic regressions of every concept on standardised inputs, fitted together by L-BFGS; what
    gives the log odds [P, C] of other positions.

    probe = fitted(x_PD, labels_PC)
    average_precisions(probe(other_PD), other_labels_PC).mean()
    """
    mean_D, std_D = x_PD.mean(0), x_PD.std(0).clamp_min(1e-6)
    standard_PD, labels = (x_PD - mean_D) / std_D, torch.from_numpy(labels_PC).float()
    W_DC = torch.zeros(x_PD.shape[1], labels.shape[1], requires_grad=True)
    rate_C = labels.mean(0).clamp(1e-6, 1 - 1e-6)
    b_C = torch.logit(rate_C).clone().requires_grad_()
    optimiser = torch.optim.LBFGS([W_DC, b_C], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits_PC = standard_PD @ W_DC + b_C
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits_PC, labels)
        value = each * labels.shape[1] + RIDGE * W_DC.square().sum()
        value.backward()
        return value

    optimiser.step(loss)

    @torch.no_grad()
    def probe(other_PD: Tensor) -> NDArray[np.float32]:
        return (((other_PD - mean_D) / std_D) @ W_DC + b_C).numpy()

    return probe


def average_precisions(
    scores_PC: NDArray, labels_PC: NDArray[np.bool_], weights_P: NDArray | None = None
) -> NDArray[np.float64]:
    """[C]: average precision of each concept, nan of one that no position shows; equal scores count
    as one step. weights_P: how often each position counts."""
    if weights_P is None:
        weights_P = np.ones(len(scores_PC))
    columns = zip(scores_PC.T, labels_PC.T, strict=True)
    return np.array([_average_precision(*column, weights_P) for column in columns])


def _average_precision(scores_P: NDArray, labels_P: NDArray, weights_P: NDArray) -> float:
    order = np.argsort(-scores_P, kind="stable")
    weight_P = weights_P[order].astype(float)
    found_P = np.cumsum(weight_P * labels_P[order])
    if not len(found_P) or found_P[-1] == 0:
        return float("nan")
    last_P = np.append(np.diff(scores_P[order]) != 0, True)  # of positions with equal scores
    found, seen = found_P[last_P], np.cumsum(weight_P)[last_P]
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    return float((np.diff(found, prepend=0) * precision).sum() / found[-1])
