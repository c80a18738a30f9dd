"""Transformers that read no text (images, proteins, any tensors) behind the door: which points they
have, and running them.

A block's points are those of its modules: `blocks.N.hook_in`, `blocks.N.hook_out`, and
`blocks.N.PATH.hook_in` or `.hook_out` of each module below it, as the model calls it. The blocks
are the longest list of modules of one class.

Shapes: B inputs, T positions, D width.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saelab.errors import UsageError
from saelab.models.hooks import resolve_hook
from saelab.models.model import Located, Model
from saelab.models.weights import Reader, refuse_non_finite

SIDES = ("hook_in", "hook_out")
OLDER = {"hook_resid_pre": "hook_in", "hook_resid_post": "hook_out"}
Act = Callable[[Tensor], Tensor | None]


class Sizes(NamedTuple):
    """What stands for the bridge's configuration."""

    n_layers: int
    d_model: int
    n_heads: int
    device: str


class Ran(NamedTuple):
    """A run's result."""

    output: Tensor
    """[B, T, D]: the last hidden state, behind the last norm"""
    acts: dict[str, Tensor]
    """by the names asked for"""


class Classified(NamedTuple):
    """A run's result with what the model's head says."""

    ran: Ran
    """of the model below the head"""
    logits: Tensor | None
    """[B, N]: of its classes; None of a model without such a head"""


class Encoder(Model):
    """A transformer from Hugging Face of which nothing but its blocks is known.

    model = Encoder(AutoModel.from_pretrained("esm2").eval())
    output_BTD, acts = encode(model, {"input_ids": ids_BT}, read=["blocks.1.hook_out"])
    """

    reads_text = False

    def __init__(
        self,
        plain: Any,
        located: Located | None = None,
        weights: Reader | None = None,
        classifier: Any = None,
    ) -> None:
        """classifier: the model with a head that classifies, of which `plain` is the rest."""
        super().__init__(plain, None, located, weights=weights)
        self.classifier = classifier
        self.blocks = _blocks(plain)
        self.lacking = _left_out(plain)

    @cached_property
    def bridge(self) -> Any:
        """There is none. Raises UsageError."""
        raise UsageError(f"a {type(self.plain).__name__} reads no text: name a language model")

    @property
    def cfg(self) -> Sizes:
        """Sizes."""
        config = getattr(self.plain.config, "vision_config", self.plain.config)
        n_heads = getattr(config, "num_attention_heads", 0)
        return Sizes(len(self.blocks), config.hidden_size, n_heads, str(self.plain.device))

    @cached_property
    def names(self) -> dict[str, str]:
        """The names of its points, with the canonical one."""
        every = {}
        for number, block in enumerate(self.blocks):
            for path, _ in block.named_modules():
                below = f"{path}." if path else ""
                every |= {name: name for name in (f"blocks.{number}.{below}{s}" for s in SIDES)}
            older = OLDER.items()
            every |= {f"blocks.{number}.{old}": f"blocks.{number}.{new}" for old, new in older}
        return every

    def module(self, canonical: str) -> tuple[nn.Module, str]:
        """The module whose input or output a point is, and which of the two."""
        _, number, *below, side = canonical.split(".")
        return self.blocks[int(number)].get_submodule(".".join(below)), side


def _left_out(plain: Any) -> tuple[str, ...]:
    """Weights of its class that this model was made without, such as a pooler's."""
    with torch.device("meta"):
        every = dict(type(plain)(plain.config).named_parameters())
    return tuple(sorted(set(every) - set(dict(plain.named_parameters()))))


def _blocks(plain: Any) -> Any:
    """The longest list of modules of one class."""
    lists = [
        module
        for module in plain.modules()
        if isinstance(module, nn.ModuleList) and len({type(one) for one in module}) == 1
    ]
    if not lists:
        raise UsageError(f"a {type(plain).__name__} has no list of blocks: no transformer is known")
    return max(lists, key=len)


@torch.no_grad()
def encode(
    model: Encoder,
    inputs: Mapping[str, Tensor],
    edits: Mapping[str, Act] | None = None,
    read: Sequence[str] = (),
) -> Ran:
    """Run a model on what its `forward` takes, with edits in place, which act before it is read.

    out_BTD = encode(model, {"pixel_values": pixels_BCHW}).output

    Raises UsageError for a point that it lacks or that gives no tensor.
    """
    return classified(model, inputs, edits, read).ran


@torch.no_grad()
def classified(
    model: Encoder,
    inputs: Mapping[str, Tensor],
    edits: Mapping[str, Act] | None = None,
    read: Sequence[str] = (),
) -> Classified:
    """As `encode`, with the classes that the model's head tells.

    logits_BN = classified(model, {"pixel_values": pixels_BCHW}).logits
    """
    acts: dict[str, Tensor] = {}
    reached: set[str] = set()
    acting = [*(edits or {}).items(), *((name, partial(_keep, acts, name)) for name in read)]
    with contextlib.ExitStack() as hooks:
        for name, act in acting:
            place = model.module(resolve_hook(model, name))
            hooks.enter_context(_hooked(*place, partial(_noting, reached, name, act)))
        states: list[Any] = []
        ended = model.plain.register_forward_hook(lambda _, __, out: states.append(out))
        hooks.callback(ended.remove)
        device, whole = model.cfg.device, model.classifier or model.plain
        out = whole(**{name: tensor.to(device) for name, tensor in inputs.items()})
    if silent := [name for name, _ in acting if name not in reached]:
        raise UsageError(f"points that give no tensor in this model: {', '.join(silent)}")
    ran = Ran(states[-1].last_hidden_state, acts)
    return Classified(ran, getattr(out, "logits", None))


def _noting(reached: set[str], name: str, act: Act, value: Tensor) -> Tensor | None:
    reached.add(name)
    return act(value)


def _keep(acts: dict[str, Tensor], name: str, value: Tensor) -> None:
    acts[name] = value.clone()


@contextlib.contextmanager
def _hooked(module: nn.Module, side: str, act: Act) -> Iterator[None]:
    """Within the block, `act` sees a module's first input or output and may put another there."""

    def entering(_: nn.Module, args: tuple) -> tuple | None:
        if not args or not isinstance(args[0], Tensor):
            return None
        new = act(args[0])
        return None if new is None else (new, *args[1:])

    def leaving(_: nn.Module, args: tuple, out: Any) -> Any:
        first = out[0] if isinstance(out, tuple) else out
        new = act(first) if isinstance(first, Tensor) else None
        if new is None:
            return out
        return (new, *out[1:]) if isinstance(out, tuple) else new

    if side == "hook_in":
        handle = module.register_forward_pre_hook(entering)
    else:
        handle = module.register_forward_hook(leaving)
    try:
        yield
    finally:
        handle.remove()


def held(plain: Any) -> Encoder:
    """A model in memory that reads no text. Raises UsageError for one in training mode, or whose
    weights are not finite."""
    if plain.training:
        raise UsageError("this model is in training mode: call its eval() first")
    refuse_non_finite(plain, f"this {type(plain).__name__}")
    return Encoder(plain)
