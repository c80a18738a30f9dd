"""Activations with labels that are known without a person: kinds of Python tokens in a cache's
text, attributes of task prompts.

Shapes: N tokens or prompts, D width, P prompts, C contexts, T positions, K kinds.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.activations import text as texts
from saelab.bundled import templates
from saelab.errors import FailedRun, UsageError
from saelab.evaluation import labels
from saelab.evaluation.supervised.runs import collect
from saelab.models.tokens import Encoder
from saelab.tasks import build
from saelab.tasks.attributes import gifts

PYTHON = ".py"
N_NAMES = 6  # names that indirect-object prompts are drawn from for probing: enough prompts each


class Labelled(NamedTuple):
    """Activations with labels."""

    x: Tensor
    """[N, D] float32"""
    labels: dict[str, np.ndarray]
    """name -> [N] bool"""
    groups: np.ndarray
    """[N] the document (or prompt) of each, for intervals and splits"""


def python_tokens(cache: Cache, hook: str, tokenizer: Any, split: str, n_tokens: int) -> Labelled:
    """The first tokens of a split that count and that belong to Python files which can be
    tokenised; see labels.KINDS.

    Raises UsageError if there is no such file, FailedRun if the text is not what it was when the
    cache was made.
    """
    wanted = _Documents(cache, tokenizer, split)
    kept_x, kept_labels, kept_groups, n_read = [], [], [], 0
    for chunk in cache.counted(hook, split):
        owners_N, ids_N = chunk.documents.numpy(), chunk.tokens.numpy()
        found_KN, known_N = wanted.next(owners_N, ids_N)
        kept_x.append(chunk.x[torch.from_numpy(known_N)])
        kept_labels.append(found_KN[:, known_N])
        kept_groups.append(owners_N[known_N])
        n_read += int(known_N.sum())
        if n_read >= n_tokens:
            break
    if not n_read:
        raise UsageError(
            f"{cache.path} holds no Python source ({split} split): token kinds need a text such "
            "as stdlib"
        )
    together_KN = np.concatenate(kept_labels, 1)
    return Labelled(
        torch.cat(kept_x),
        dict(zip(labels.KINDS, together_KN, strict=True)),
        np.concatenate(kept_groups),
    )


class Contexts(NamedTuple):
    """Whole contexts with labels."""

    tokens: Tensor
    """[C, T]"""
    labels: np.ndarray
    """[C, T, K] bool, in the order of labels.KINDS; nothing where unknown"""
    known: np.ndarray
    """[C, T] whether a token counts and is of a Python file"""


def python_contexts(cache: Cache, hook: str, tokenizer: Any, split: str, n_tokens: int) -> Contexts:
    """The first contexts of a split, until they hold n_tokens tokens whose kind is known. Raises
    FailedRun if the text is not what it was when the cache was made."""
    wanted = _Documents(cache, tokenizer, split)
    tokens, found, known, n_read = [], [], [], 0
    for chunk in cache.contexts(hook, split):
        counted_CT = chunk.counted.numpy()
        owners_N, ids_N = (part.numpy()[counted_CT] for part in (chunk.documents, chunk.tokens))
        found_KN, known_N = wanted.next(owners_N, ids_N)
        known_CT = np.zeros(counted_CT.shape, dtype=bool)
        known_CT[counted_CT] = known_N
        labels_CTK = np.zeros((*counted_CT.shape, len(labels.KINDS)), dtype=bool)
        labels_CTK[known_CT] = found_KN[:, known_N].T
        tokens.append(chunk.tokens)
        found.append(labels_CTK)
        known.append(known_CT)
        n_read += int(known_N.sum())
        if n_read >= n_tokens:
            break
    return Contexts(torch.cat(tokens), np.concatenate(found), np.concatenate(known))


def check_python(cache: Cache) -> None:
    """Raise UsageError if no document of a cache is a Python file."""
    if not any(name.endswith(PYTHON) for name in cache.document_names()):
        raise UsageError(
            f"{cache.path} holds no Python source: token kinds need a text such as stdlib"
        )


class _Documents:
    """Labels of a split's documents in the order in which the cache holds their tokens."""

    def __init__(self, cache: Cache, tokenizer: Any, split: str) -> None:
        plan = cache.plan
        words = texts.words(tokenizer) if plan.text == "bundled-mix" else None
        text = texts.Text(plan.text, plan.text_field, seed=plan.seed)
        self.text, self.ends = plan.text, [] if plan.eos is None else [plan.eos]
        if text.split.rule != plan.split_rule:
            raise self._changed()
        sides = {"train": False, "held_out": True}
        documents = enumerate(text.documents(words))
        self.stream = ((n, d) for n, d in documents if text.split.holds_out(d.key) == sides[split])
        self.encoder = Encoder(tokenizer, plan.parse_special)
        self.number, self.at = -1, 0
        self.ids = np.zeros(0, dtype=np.int64)
        self.found: np.ndarray | None = None

    def next(self, owners_N: np.ndarray, ids_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels [kinds, N] of the next tokens, and which of them [N] are known: Python, and not a
        document's end."""
        found_KN, known_N = (
            np.zeros((len(labels.KINDS), len(owners_N)), dtype=bool),
            np.zeros(len(owners_N), dtype=bool),
        )
        for part in _pieces(owners_N):
            if owners_N[part.start] != self.number:
                self._open(int(owners_N[part.start]))
            span = slice(self.at, self.at + part.stop - part.start)
            if not np.array_equal(self.ids[span], ids_N[part]):
                raise self._changed()
            self.at = span.stop
            if self.found is not None:
                found_KN[:, part] = self.found[:, span]
                known_N[part] = ~np.isin(ids_N[part], self.ends)
        return found_KN, known_N

    def _changed(self) -> FailedRun:
        return FailedRun(
            f"{self.text} is not what it was when the cache was made: capture it again"
        )

    def _open(self, number: int) -> None:
        """Go on to document `number`."""
        document = next((d for n, d in self.stream if n == number), None)
        if document is None:
            raise FailedRun(
                f"{self.text} has fewer documents than when the cache was made: capture it again"
            )
        ids, spans = self.encoder.spans(document.text)
        self.number, self.at, self.ids = number, 0, np.array([*ids, *self.ends])
        offsets = [*spans, (len(document.text), len(document.text))]
        self.found = (
            labels.of_tokens(document.text, offsets) if document.name.endswith(PYTHON) else None
        )


def _pieces(owners_N: np.ndarray) -> Iterator[slice]:
    """Runs of tokens of one document."""
    bounds = [0, *(np.flatnonzero(np.diff(owners_N)) + 1).tolist(), len(owners_N)]
    return (slice(first, end) for first, end in pairwise(bounds))


def indirect_objects(model: Any, hook: str, n: int, *, held_out: bool, seed: int = 0) -> Labelled:
    """Activations [n, D] at the last token of indirect-object prompts, with labels: who receives,
    who gives, who stands first.

    Wang et al. 2022, section 2: `order ABB` means that the giver is the second of the two names.
    held_out: templates that the bundled model was not trained on.
    """
    names = templates.NAMES[:N_NAMES]
    # Any tokenizer will do: the prompts are read, not answered.
    drawn = [one._replace(right=(), wrong=()) for one in gifts(n, names, held_out, seed)]
    prompts = build("ioi", model, drawn)
    said = {name: np.array(prompts.labels[name]) for name in ("io", "s", "order")}
    attributes = {f"receiver {name}": said["io"] == name for name in names}
    attributes |= {f"giver {name}": said["s"] == name for name in names}
    attributes["order ABB"] = said["order"] == "ABB"
    x_ND = collect(model, prompts, hook, ["end"])["end"].float().cpu()
    return Labelled(x_ND, attributes, np.arange(n))
