"""Labelled prompts: texts with their answers and attribute values, tokenised, and which of them
differ in one attribute alone.

Shapes: P prompts, T positions, A right answers, W wrong answers.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.tasks.answers import Metric


class Row(NamedTuple):
    """One prompt. answers, wrong: single-token continuations, leading space included; attributes:
    value by name.

    positions: places that may be edited, as the number of a character the token holds (`end`, the
    last token, always exists). group: prompts written as counterfactuals of each other share it.
    """

    prompt: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    attributes: dict[str, str]
    positions: Mapping[str, int] = MappingProxyType({})
    group: str = ""


class Labelled(NamedTuple):
    """P prompts padded on the right to T tokens; right [P, A] and wrong [P, W] are token ids padded
    with -1.

    metric: `logit_difference` or `probability_difference`. positions: name -> token number [P].
    labels: attribute -> P values.
    """

    tokens: Tensor
    right: Tensor
    wrong: Tensor
    metric: Metric
    positions: dict[str, Tensor]
    labels: dict[str, list[str]]
    groups: list[str]

    def take(self, index: Sequence[int]) -> "Labelled":
        """The prompts of these numbers."""
        rows = torch.as_tensor(index, dtype=torch.int64)
        return self._replace(
            tokens=self.tokens[rows],
            right=self.right[rows],
            wrong=self.wrong[rows],
            positions={name: at[rows] for name, at in self.positions.items()},
            labels={name: [values[i] for i in rows] for name, values in self.labels.items()},
            groups=[self.groups[i] for i in rows],
        )

    def pairs(self, attribute: str) -> tuple[Tensor, Tensor]:
        """(source [M], target [M]): prompts that agree on the group and every attribute but this
        one; each is used once."""
        others = [values for name, values in self.labels.items() if name != attribute]
        open_ones: dict[tuple, list[int]] = defaultdict(list)
        found = []
        for i, key in enumerate(zip(self.groups, *others, strict=True)):
            waiting = open_ones[key]
            match = next(
                (j for j in waiting if self.labels[attribute][j] != self.labels[attribute][i]), None
            )
            if match is None:
                waiting.append(i)
            else:
                waiting.remove(match)
                found.append((match, i))
        source, target = torch.tensor(found, dtype=torch.int64).reshape(-1, 2).unbind(1)
        return source, target


def _ids(words: Iterable[str], tokenizer: Any) -> list[int]:
    found = []
    for word in words:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise UsageError(
                f"the answer {word!r} is {len(ids)} tokens of this model; answers are single tokens, space included"
            )
        found.append(ids[0])
    return found


def _padded(rows: list[list[int]], fill: int) -> Tensor:
    width = max(1, *(len(row) for row in rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def _locate(row: Row, tokenizer: Any) -> tuple[list[int], dict[str, int]]:
    """Token ids of the prompt after the first token, and the number of each position's token."""
    coded = tokenizer(row.prompt, return_offsets_mapping=True, add_special_tokens=False)
    places = {}
    for name, character in {**row.positions, "end": len(row.prompt) - 1}.items():
        token = next(
            (i for i, (low, high) in enumerate(coded["offset_mapping"]) if low <= character < high),
            None,
        )
        if token is None:
            raise UsageError(
                f"position {name!r} is character {character} of a prompt of {len(row.prompt)}: {row.prompt!r}"
            )
        places[name] = token + 1
    return coded["input_ids"], places


def label(rows: Sequence[Row], tokenizer: Any, metric: Metric = "logit_difference") -> Labelled:
    """Tokenise rows, the beginning-of-text token first.

    Raises UsageError for answers of several tokens, and rows with other attributes or positions
    than the first.
    """
    if not rows:
        raise UsageError("no prompts: give at least two per attribute value")
    for row in rows:
        for what in ("attributes", "positions"):
            if (has := sorted(getattr(row, what))) != (wants := sorted(getattr(rows[0], what))):
                raise UsageError(
                    f"every prompt has the same {what}: {wants}, but {row.prompt!r} has {has}"
                )
    first = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    located = [_locate(row, tokenizer) for row in rows]
    words = sorted({word for row in rows for word in (*row.answers, *row.wrong)})
    ids = dict(zip(words, _ids(words, tokenizer), strict=True))
    shift = len(first) - 1
    return Labelled(
        _padded([first + tokens for tokens, _ in located], 0),
        _padded([[ids[w] for w in row.answers] for row in rows], -1),
        _padded([[ids[w] for w in row.wrong] for row in rows], -1),
        metric,
        {
            name: torch.tensor([places[name] + shift for _, places in located])
            for name in (*rows[0].positions, "end")
        },
        {name: [row.attributes[name] for row in rows] for name in rows[0].attributes},
        [row.group for row in rows],
    )


def split(rows: Sequence[Row], seed: int = 0) -> tuple[list[Row], list[Row]]:
    """(rows to fit on, rows to test on): a random half of the groups each; rows without a group are
    their own."""
    keys = [row.group or f"row {i}" for i, row in enumerate(rows)]
    groups = list(dict.fromkeys(keys))
    fitting = set(random.Random(seed).sample(groups, len(groups) // 2))
    halves = [
        [row for key, row in zip(keys, rows, strict=True) if (key in fitting) == fit]
        for fit in (True, False)
    ]
    if not all(halves):
        raise UsageError(
            f"{len(groups)} independent prompts cannot be split into those to fit on and those to test on"
        )
    return halves[0], halves[1]


def read(path: Path) -> list[Row]:
    """Rows of a JSON-lines file: `prompt`, `answers` (or `answer`), `attributes`, optionally
    `wrong`, `positions`, `group`.

    Raises UsageError, with the line's number, for what is not such a row.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
            answers = tuple(given["answers"] if "answers" in given else [given["answer"]])
            wrong, group = tuple(given.get("wrong", ())), str(given.get("group", ""))
            attributes = {str(name): str(value) for name, value in given["attributes"].items()}
            positions = {str(name): int(at) for name, at in given.get("positions", {}).items()}
            rows.append(Row(str(given["prompt"]), answers, wrong, attributes, positions, group))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wanted = '{"prompt": "...", "answers": [" x"], "attributes": {"name": "value"}}'
            raise UsageError(
                f"{path}, line {number} is no labelled prompt ({error!r}); wanted: {wanted}"
            ) from None
    return rows
