"""Which labelled prompts differ in one attribute alone, and which are fitted and which tested on.

Shapes: M pairs.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.tasks import Drawn, Task


def pairs(task: Task, attribute: str) -> tuple[Tensor, Tensor]:
    """(source [M], target [M]): prompts that agree on the group and every attribute but this one;
    each is used once."""
    others = [values for name, values in task.labels.items() if name != attribute]
    open_ones: dict[tuple, list[int]] = defaultdict(list)
    matched, values = [], task.labels[attribute]
    for i, key in enumerate(zip(task.groups, *others, strict=True)):
        waiting = open_ones[key]
        match = next((j for j in waiting if values[j] != values[i]), None)
        if match is None:
            waiting.append(i)
        else:
            waiting.remove(match)
            matched.append((match, i))
    source, target = torch.tensor(matched, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return source, target


def split(prompts: Sequence[Drawn], seed: int = 0) -> tuple[list[Drawn], list[Drawn]]:
    """(prompts to fit on, prompts to test on): a random half of the groups each; prompts without a
    group are their own."""
    keys = [drawn.group or f"row {i}" for i, drawn in enumerate(prompts)]
    groups = list(dict.fromkeys(keys))
    fitting = set(random.Random(seed).sample(groups, len(groups) // 2))
    keyed = list(zip(keys, prompts, strict=True))
    fit = [drawn for key, drawn in keyed if key in fitting]
    test = [drawn for key, drawn in keyed if key not in fitting]
    if not fit or not test:
        raise UsageError(
            f"{len(groups)} independent prompts cannot be split into those to fit on and those to "
            "test on"
        )
    return fit, test
