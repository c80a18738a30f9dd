"""Stretches of tokens whose activations are averaged: what a label of a text, or of a part of one,
is probed on.

The last token of a text, the mean over its tokens, and each token by itself are one thing: a
stretch. Shapes: N stretches, C texts at once, T positions, D width, F latents.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.evaluation import probing
from saelab.evaluation.probing import Inputs
from saelab.models import running
from saelab.models.tokens import Encoder, bounds
from saelab.sae import SAE
from saelab.tasks.labelled_texts import LabelledTexts


class Stretches(NamedTuple):
    """Parts of texts."""

    text: np.ndarray
    """[N] the text that each lies in"""
    first: np.ndarray
    """[N] its first token, counted with what starts the context"""
    end: np.ndarray
    """[N] the token behind its last"""
    labels: dict[str, np.ndarray]
    """name -> [N] bool"""


class Contexts(NamedTuple):
    """Texts as a model reads them."""

    ids: list[list[int]]
    """tokens of each different text, with what starts a context"""
    rows: np.ndarray
    """[rows] the text of each labelled row"""
    spans: list[tuple[int, int]]
    """[rows] the tokens that each row's label is of"""
    n_before: int
    """tokens that start a context: 1 or 0"""
    cut: int
    """texts that were longer than the model's context, of which the end is read"""


def contexts(model: Any, rows: LabelledTexts, bos: int | str | None, *, cut: bool) -> Contexts:
    """Texts as tokens. bos: what starts a context, as of `models.tokens.bounds`. cut: whether the
    end of a text that is longer than the model's context is read, as sae-probes does it.

    Raises UsageError for a text without a token, for one that is longer unless `cut`, and for a
    span without a token.
    """
    first = bounds(model.tokenizer, bos).bos
    start = [] if first is None else [first]
    most = model.cfg.n_ctx - len(start)
    texts, rows_N = np.unique(np.array(rows.texts, dtype=object), return_inverse=True)
    encoder = Encoder(model.tokenizer)
    read = encoder.ids(texts.tolist())
    n_cut = 0
    for number, ids in enumerate(read):
        if cut and rows.spans is None and len(ids) > most:
            read[number], n_cut = ids[-most:], n_cut + 1
        elif not 0 < len(ids) <= most:
            where = int(np.flatnonzero(rows_N == number)[0]) + 1
            raise UsageError(f"text {where} has {len(ids):,} tokens: give from 1 to {most:,}")
    ids = [[*start, *one] for one in read]
    if rows.spans is None:
        spans = [(len(start), len(ids[number])) for number in rows_N]
    else:
        offsets = [encoder.spans(text)[1] for text in texts]
        pairs = enumerate(zip(rows_N, rows.spans, strict=True), 1)
        spans = [_tokens(offsets[n], span, len(start), row) for row, (n, span) in pairs]
    return Contexts(ids, rows_N, spans, len(start), n_cut)


def _tokens(
    offsets: Sequence[tuple[int, int]], span: tuple[int, int], n_before: int, row: int
) -> tuple[int, int]:
    """The tokens that hold some of a span's characters."""
    touched = [n for n, (a, b) in enumerate(offsets) if a < span[1] and b > span[0]]
    if not touched:
        raise UsageError(f"the span of text {row} holds no token: give a longer one")
    return touched[0] + n_before, touched[-1] + 1 + n_before


def of_rows(known: Contexts, rows: LabelledTexts) -> dict[str, Stretches]:
    """A stretch per row: `last`, the last token of what its label is of, and `pooled`, all of it.
    None of spans that have one label."""
    names = rows.properties if len(set(rows.labels)) > 1 else []
    labels_N = np.array(rows.labels, dtype=object)
    labels = {name: labels_N == name for name in names}
    first, end = np.array(known.spans).T
    of_texts = {
        "last": Stretches(known.rows, end - 1, end, labels),
        "pooled": Stretches(known.rows, first, end, labels),
    }
    return of_texts if names else {}


def of_tokens(known: Contexts, rows: LabelledTexts, most: int, seed: int) -> Stretches:
    """A stretch per token, labelled by the spans that it lies in; those outside of any have none.
    Of each label `most` tokens at most, and as many others."""
    offsets = np.cumsum([0, *map(len, known.ids)])
    names = sorted(set(rows.labels))
    labels = {name: np.zeros(offsets[-1], dtype=bool) for name in names}
    for text, (first, end), name in zip(known.rows, known.spans, rows.labels, strict=True):
        labels[name][offsets[text] + first : offsets[text] + end] = True
    text_M = np.repeat(np.arange(len(known.ids)), np.diff(offsets))
    at_M = np.arange(offsets[-1]) - offsets[text_M]
    rng = np.random.default_rng(seed)
    picked: set[int] = set()
    for on_M in labels.values():
        for side in (on_M, ~on_M & (at_M >= known.n_before)):
            picked.update(rng.permutation(np.flatnonzero(side))[:most].tolist())
    chosen = np.array(sorted(picked))
    mine = {name: on_M[chosen] for name, on_M in labels.items()}
    return Stretches(text_M[chosen], at_M[chosen], at_M[chosen] + 1, mine)


def averaged(
    model: Any, hook: str, ids: list[list[int]], saes: Mapping[str, SAE], parts: Stretches
) -> dict[str, Inputs]:
    """The mean over each stretch of the activation (`neurons` [N, D]) and of each SAE's code
    (sparse rows [N, F])."""
    order, pieces = [], defaultdict(list)
    for numbers, acts_CTD in _read(model, hook, ids):
        place = np.full(len(ids), -1)
        place[numbers] = np.arange(len(numbers))
        here = np.flatnonzero(place[parts.text] >= 0)
        first, end = parts.first[here], parts.end[here]
        mean = _means(place[parts.text[here]] * acts_CTD.shape[1], first, end, acts_CTD[..., 0])
        x_ND = acts_CTD.flatten(0, 1)
        order.append(here)
        pieces["neurons"].append(mean @ x_ND.double().numpy())
        for name, sae in saes.items():
            pieces[name].append(mean @ probing.latents(sae, x_ND))
    back = np.argsort(np.concatenate(order), kind="stable")
    made: dict[str, Inputs] = {"neurons": np.concatenate(pieces.pop("neurons"))[back]}
    for name, each in pieces.items():
        rows_NF: Inputs = scipy.sparse.vstack(each, format="csr")
        made[name] = rows_NF[back]
    return made


def _means(start: np.ndarray, first: np.ndarray, end: np.ndarray, like: Tensor) -> Inputs:
    """[N, C T]: the mean over tokens first to end of the contexts that begin at `start`."""
    lengths = end - first
    rows = np.repeat(np.arange(len(start)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = np.repeat(start + first, lengths) + within
    weights = np.repeat(1 / lengths, lengths)
    return scipy.sparse.csr_array((weights, (rows, columns)), (len(start), like.numel()))


def _read(model: Any, hook: str, ids: list[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
    """Texts of one length at a time, and their activations [C, T, D] on the CPU."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, tokens in enumerate(ids):
        by_length[len(tokens)].append(number)
    for length, numbers in by_length.items():
        size = running.contexts_per_pass(model, length)
        for at in range(0, len(numbers), size):
            part = numbers[at : at + size]
            acts = running.read(model, torch.tensor([ids[n] for n in part]), [hook])[hook]
            yield part, acts.flatten(2).float().cpu()
