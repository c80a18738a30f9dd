"""How well a model answers a prompt whose right and wrong next tokens are known.

Shapes: P prompts, T positions, V vocabulary, A right answers, W wrong answers.
"""

from typing import Literal

from torch import Tensor

Metric = Literal["logit_difference", "probability_difference"]


def measure(metric: Metric, right_PA: Tensor, wrong_PW: Tensor, logits: Tensor) -> Tensor:
    """The metric for each prompt [P], from logits [P, T, V] (read at the last position) or [P, V];
    answers are ids, -1 for none.

    logit_difference: mean logit of the right answers minus mean logit of the wrong ones, in nats.
    probability_difference: summed probability of the right answers minus that of the wrong ones
    (Hanna et al. 2023, section 2).
    """
    logits_PV = (logits[:, -1] if logits.ndim == 3 else logits).float()
    values_PV = logits_PV if metric == "logit_difference" else logits_PV.softmax(-1)
    right_P, wrong_P = (
        _sum(values_PV, ids, metric == "logit_difference") for ids in (right_PA, wrong_PW)
    )
    return right_P - wrong_P


def _sum(values_PV: Tensor, ids_PA: Tensor, mean: bool) -> Tensor:
    ids_PA = ids_PA.to(values_PV.device)
    given_PA = ids_PA >= 0
    total_P = (values_PV.gather(1, ids_PA.clamp(min=0)) * given_PA).sum(1)
    return total_P / given_PA.sum(1) if mean else total_P
