"""Positions whose concepts are known, and how dictionaries align with them: kinds of Python tokens
in a cache of text, what patches show in a cache of labelled images.

Shapes: N positions, D width, C concepts, P patches.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.activations.seen import Looking, grid
from saelab.errors import UsageError
from saelab.evaluation import labelled, probing
from saelab.evaluation.alignment import Alignment, Labelled, align
from saelab.sae import SAE
from saelab.scenes.labels import of_pixels

RESAMPLES = 300


class Positions(NamedTuple):
    """Activations with concepts."""

    x: Tensor
    """[N, D] float32"""
    labels: np.ndarray
    """[N, C] bool"""
    owners: np.ndarray
    """[N] the document or image of each"""
    names: list[str]
    """of the concepts"""


def of_text(cache: Cache, hook: str, tokenizer: Any, split: str, n: int) -> Positions:
    """The first n tokens of a split that are of Python files, with their kinds. Raises what
    `labelled.python_tokens` raises."""
    x, labels, owners = labelled.python_tokens(cache, hook, tokenizer, split, n)
    return Positions(x[:n], np.stack([*labels.values()], 1)[:n], owners[:n], [*labels])


def of_images(cache: Cache, hook: str, looking: Looking, split: str, n: int) -> Positions:
    """The first n patches of a split, and the rest of the last image, with what most of their
    pixels are labelled with. Raises UsageError for images without labels, or that are gone."""
    if looking.labels is None:
        raise UsageError(f"the images of {cache.path} have no labels: concepts need some")
    names, patch = looking.labels.concepts, grid(cache).patch
    pieces, labels, owners, n_read = [], [], [], 0
    for chunk in cache.counted(hook, split):
        pieces.append(chunk.x)
        owners.append(chunk.documents.numpy())
        n_read += len(chunk.x)
        if n_read >= n:
            break
    owner_N = np.concatenate(owners)
    for owner in dict.fromkeys(owner_N.tolist()):
        said = looking.image(owner).labels
        if said is None:
            raise UsageError(f"an image of {cache.path} has no labels, others have: label it too")
        labels.append(of_pixels(said, patch, len(names))[: int((owner_N == owner).sum())])
    return Positions(torch.cat(pieces), np.concatenate(labels), owner_N, [*names])


def table(
    saes: Mapping[str, SAE],
    train: Positions,
    test: Positions,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    shuffles: int = 5,
    neurons: bool = True,
) -> dict[str, Alignment]:
    """The alignment of each dictionary with the concepts and, unless that is left out, that of
    `neurons`, the activation's own coordinates, on the same positions."""
    inputs: dict[str, Any] = {
        name: tuple(probing.latents(sae, part.x) for part in (train, test))
        for name, sae in saes.items()
    }
    if neurons:
        centred = [part.x - train.x.mean(0) for part in (train, test)]
        inputs["neurons"] = tuple(scipy.sparse.csr_array(x.double().numpy()) for x in centred)
    options: Any = {"seed": seed, "resamples": resamples, "shuffles": shuffles}
    aligned = {}
    for name, (seen, held_out) in inputs.items():
        seen = Labelled(seen, train.labels, train.owners)
        held_out = Labelled(held_out, test.labels, test.owners)
        aligned[name] = align(seen, held_out, train.names, **options)
    return aligned


def as_dict(aligned: Alignment) -> dict[str, Any]:
    """An alignment for JSON."""
    estimates = ("precision", "purity", "coverage")
    whole = {name: getattr(aligned, name).as_dict() for name in estimates}
    each = [
        {
            **one._asdict(),
            "precision": one.precision.as_dict(),
            "purity": one.purity.as_dict(),
        }
        for one in aligned.concepts
    ]
    return {**whole, "concepts": each}
