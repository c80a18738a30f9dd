"""A batch of contexts run as they are, and again with something else at a hook, or at several:
only from there on where the model allows it.

Shapes: C contexts, T positions, D width, X what is kept of a prediction.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab import joint
from saelab.models import running
from saelab.models.families import BLOCK
from saelab.models.heads import ENDING, head
from saelab.models.hooks import resolve_hook


class Start(NamedTuple):
    """Where a run may begin that is to see a change at a hook."""

    layer: int
    """the first one that runs; the number of layers: none does"""
    is_stream: bool
    """whether the hook is the stream that enters it"""


def begins_at(model: Any, hook: str) -> Start | None:
    """Where a run with another activation at `hook` may begin, None where it has to be a whole
    one."""
    name = resolve_hook(model, hook)
    within = BLOCK.fullmatch(name)
    if within is None or not running.is_plain(model, [(name, torch.detach)]):
        return None
    layer, place = int(within[1]), within[2]
    return Start(layer + (place == "hook_out"), place in ("hook_in", "hook_out"))


class Splice:
    """A clean run, and what comes of replacing the activation at a hook, or at several.

    splice = Splice(model, tokens, "blocks.1.hook_resid_post")
    endings = {"clean": splice.clean, "zero": splice.ending(torch.zeros_like(splice.acts[hook]))}
    compare(model, endings, tokens, predicting)["zero"].loss
    """

    def __init__(self, model: Any, tokens_CT: Tensor, hook: str, read: Sequence[str] = ()) -> None:
        self.model, self.tokens_CT, self.hook = model, tokens_CT, hook
        self.hooks = joint.parts(hook)
        self._start = begins_at(model, hook) if len(self.hooks) == 1 else None
        asked = dict.fromkeys([hook, *read])
        names = list(dict.fromkeys(part for name in asked for part in joint.parts(name)))
        inside = self._start if self._start and not self._start.is_stream else None
        entry = [f"blocks.{inside.layer}.hook_in"] if inside else []
        with torch.no_grad():
            if head(model) is None:
                self.clean, acts = running.run(model, tokens_CT, read=names)
            else:
                acts = running.read(model, tokens_CT, [*names, *entry, ENDING])
                self.clean = acts[ENDING]
        flat = {name: acts[name].flatten(2) for name in names}
        self.acts = {
            name: joint.beside([flat[part] for part in joint.parts(name)]) for name in asked
        }
        self._shapes = [acts[name].shape for name in self.hooks]
        self._widths = [flat[name].shape[2] for name in self.hooks]
        self._stream = acts[entry[0]] if entry else None

    @torch.no_grad()
    def ending(self, replacement_CTD: Tensor, at: str | None = None) -> Tensor:
        """[C, T, X]: what the unembedding reads (logits where the head is not known) with the
        activation at the hook replaced; heads flattened. at: the one of several hooks that is
        replaced (default: all are)."""
        pieces = zip(replacement_CTD.split(self._widths, -1), self._shapes, strict=True)
        whole = [piece.reshape(shape).to(self.clean) for piece, shape in pieces]
        given = {
            name: piece for name, piece in zip(self.hooks, whole, strict=True) if at in (None, name)
        }
        if self._start is None:
            return self._run(self.tokens_CT, given, None)
        if self._stream is None:
            return self._run(given[self.hook], {}, self._start.layer)
        return self._run(self._stream, given, self._start.layer)

    @torch.no_grad()
    def run(self, edits: running.Edits) -> Tensor:
        """[C, T, X]: the same of a whole run with these edits in place."""
        return self._run(self.tokens_CT, edits, None)

    def _run(self, entering: Tensor, edits: running.Edits, enter: int | None) -> Tensor:
        if head(self.model) is None:
            return running.logits(self.model, entering, edits, enter=enter)
        return running.read(self.model, entering, [ENDING], edits, enter=enter)[ENDING]
