"""A vision model over images as a Source: each image is a context, its patches are the positions.

Shapes: C images, T positions, H x W pixels.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saelab import documents, models
from saelab.activations.plan import Plan, hook
from saelab.activations.source import SPLITS, Piece
from saelab.errors import UsageError
from saelab.models.encoders import Encoder, encode
from saelab.pictures import Images, Preparer, Undecodable, opened, prepared_for
from saelab.textfiles import Skipped

AT_ONCE = 32  # images in a forward pass
IMAGES = "images"  # field of a manifest by which a cache is known to be of images


def from_images(
    model: models.Model,
    images: str | Images,
    hooks: Sequence[str],
    n_tokens: int = 1 << 31,
    *,
    dtype: str = "float16",
    column: str = "",
    strict: bool = False,
    seed: int = 0,
) -> "FromImages":
    """The activations of a vision model at `hooks` over as many images as hold n_tokens positions.

    images: what `pictures.opened` takes, or what it gives. Positions before the patches ([CLS],
    registers) do not count. strict: an image that cannot be decoded is refused, not left out.
    Raises UsageError for an unknown hook, for images that are none, and for fewer than two.

        source = from_images(models.load("bundled-vision"), "scenes", ["blocks.5.hook_out"], 10**5)
        cache = Cache.write("cache", source)
    """
    preparer = prepared_for(model)
    assert isinstance(model, Encoder)  # every other model is refused there
    length = preparer.grid.length
    n_images = max(2, -(-n_tokens // length))
    if isinstance(images, str):
        images = opened(images, column, seed, n_images)
    n_images = min(n_images, len(images.names))
    if n_images < 2:
        raise UsageError(f"{images.name} holds one image: two are needed, one for each split")
    plan = Plan(
        model=models.record(model),
        text=images.name,
        hooks=_asked(model, preparer, hooks),
        n_tokens=n_images * length,
        context=length,
        text_field=column,
        dtype=dtype,
        bos=None,
        eos=None,
        seed=seed,
        pack="given",
        masked=True,
        model_dtype=models.dtype_of(model),
    )
    return FromImages(model, preparer, images, plan, n_images, strict)


def _asked(model: Encoder, preparer: Preparer, hooks: Sequence[str]) -> dict[str, dict]:
    """The plan's entries of the hook points, once each. Raises UsageError for one that has no
    vector per position."""
    names, grid = models.once_each(model, hooks), preparer.grid
    blank = np.zeros((1, *grid.size, 3), np.uint8)
    acts = encode(model, _read(model, preparer, blank), read=names).acts
    for name, each in acts.items():
        if each.ndim != 3 or each.shape[1] != grid.length:
            raise UsageError(
                f"hook {name!r} gives {list(each.shape)} for an image of {grid.length} positions: "
                "only hooks with a vector per position can be cached"
            )
    return {name: hook(acts[name].shape[2:], models.aliases(model, name)) for name in names}


def _read(model: Encoder, preparer: Preparer, pixels_CHWC: NDArray) -> dict[str, Tensor]:
    """What the model's forward takes."""
    return {"pixel_values": preparer.normal(pixels_CHWC).to(next(model.parameters()))}


class FromImages:
    """See `from_images`."""

    def __init__(
        self,
        model: Encoder,
        preparer: Preparer,
        images: Images,
        plan: Plan,
        n_images: int,
        strict: bool = False,
    ) -> None:
        self.model, self.preparer, self.images = model, preparer, images
        self.n_images, self.strict = n_images, strict
        read = ((name, name) for name, _ in zip(images.names, range(n_images), strict=False))
        self.split = documents.split(read)
        self.plan = replace(plan, split_rule=self.split.rule)
        self.names: list[str] = []
        self.notes: dict[str, Any] = {}
        self._sha = hashlib.sha256()
        # What was decoded for `pieces` and is not yet run: at most a few shards of it.
        self._pixels: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    @property
    def device(self) -> str:
        """Where the activations lie."""
        return self.model.cfg.device

    def pieces(self) -> Iterator[Piece]:
        """An image each, in order; those that cannot be decoded are left out and named."""
        self.names, skipped = [], Skipped(self.strict)
        self._sha = hashlib.sha256(f"{self.preparer.grid} {self.n_images}".encode())
        counted_1T = torch.ones(1, self.plan.context, dtype=torch.bool)
        counted_1T[:, : self.preparer.grid.prefix] = False
        for number in range(self.n_images):
            name = self.images.names[number]
            try:
                pixels = self._keep(number)
            except Undecodable as error:
                skipped.file(error)
                continue
            owner = len(self.names)
            self.names.append(name)
            self._sha.update(name.encode("utf-8", "surrogatepass"))
            self._sha.update(pixels.tobytes())
            at_T = torch.arange(self.plan.context)
            tokens_1T = (owner * self.plan.context + at_T)[None] % 2**31
            owners_1T = torch.full_like(tokens_1T, owner)
            split = SPLITS[int(self.split.holds_out(name))]
            yield Piece(split, tokens_1T, owners_1T, torch.tensor([number]), counted_1T)
        grid = self.preparer.grid._asdict()
        self.notes = {IMAGES: {**grid, "digest": self._sha.hexdigest()}, **skipped.notes()}

    def _keep(self, number: int) -> NDArray[np.uint8]:
        pixels = self.preparer.pixels(self.images.read(number))
        self._pixels[number] = pixels
        while len(self._pixels) > 4 * self.plan.shard_contexts:
            self._pixels.popitem(last=False)
        return pixels

    def is_unchanged(self, notes: Mapping[str, Any]) -> bool:
        """Scenes of a seed are what they were; of all else this is not known before it is read."""
        held = notes.get(IMAGES) or {}
        return self.images.name == "scenes" and held.get("rows") == self.preparer.grid.rows

    def was_read(self, notes: Mapping[str, Any]) -> bool:
        """Whether the images read last, pixel by pixel, are those of a cache's manifest."""
        return notes.get(IMAGES) == self.notes[IMAGES]

    def acts(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        """What the model computes, a forward pass at a time."""
        for numbers in piece.numbers.split(AT_ONCE):
            pixels = [self._taken(number) for number in numbers.tolist()]
            inputs = _read(self.model, self.preparer, np.stack(pixels))
            yield encode(self.model, inputs, read=list(self.plan.hooks)).acts

    def _taken(self, number: int) -> NDArray[np.uint8]:
        pixels = self._pixels.pop(number, None)
        return self.preparer.pixels(self.images.read(number)) if pixels is None else pixels
