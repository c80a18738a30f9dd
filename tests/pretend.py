"""A pretend accelerator, for tests on machines without one.

Within `pretend_accelerator()` tensors on the device "meta" hold real values and compute on the CPU,
but say that they lie elsewhere and refuse what a card refuses: a CPU tensor of one dimension or
more in the same operation, `.numpy()`, a CPU generator. The device is called "meta" because a CPU
build of torch guards that one, and knows no "cuda".
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

AWAY = torch.device("meta")
aten = torch.ops.aten
TAKE_CPU_INDICES = (aten.index.Tensor, aten.index_put_.default)  # on a card, too


class Pretend(torch.Tensor):
    """A tensor that says it lies on the accelerator; `inner` is where its values are."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Pretend":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=AWAY,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretend({self.inner!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor of the accelerator to numpy: use .cpu() first")

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def plain(value: Any) -> Any:
    """A tensor's values on the CPU; anything else as it is."""
    return value.inner if isinstance(value, Pretend) else value


def is_away(device: Any) -> bool:
    """Whether a device is the accelerator."""
    return device is not None and torch.device(device).type == AWAY.type


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation of torch, on the inner tensors. Raises RuntimeError where a card would."""
    device = kwargs.get("device")
    if func in (aten._to_copy.default, aten.to.device):
        goal = args[0].device if device is None else device
        copied = func(plain(args[0]), *args[1:], **{**kwargs, "device": torch.device("cpu")})
        return Pretend(copied) if is_away(goal) else copied
    if func is aten.copy_.default:
        plain(args[0]).copy_(plain(args[1]))
        return args[0]
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    ours = [t for t in tensors if isinstance(t, Pretend)]
    astray = [t for t in tensors if not isinstance(t, Pretend) and t.dim() > 0]
    if ours and astray and func not in TAKE_CPU_INDICES:
        raise RuntimeError(f"{func}: not on the same device, but the accelerator and the CPU")
    makes = bool(ours) or is_away(device)
    inner = {name: tree_map(plain, value) for name, value in kwargs.items()}
    if device is not None:
        inner["device"] = torch.device("cpu")
    generator = inner.get("generator")
    if makes and generator is not None and generator.device.type == "cpu":
        raise RuntimeError("a CPU generator for a tensor of the accelerator")
    result = func(*tree_map(plain, args), **inner)
    known = {id(t.inner): t for t in ours}  # an operation in place gives its argument back

    def wrapped(value: Any) -> Any:
        if not makes or not isinstance(value, torch.Tensor):
            return value
        return known.get(id(value)) if id(value) in known else Pretend(value)

    return tree_map(wrapped, result)


class Operations(TorchDispatchMode):
    """Every operation goes through `compute`, those without a tensor as well."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Moves(TorchFunctionMode):
    """`x.to(device)`, `x.cpu()` and `tensor(..., device=)`, before torch looks for a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "cpu" and isinstance(args[0], torch.Tensor):
            return moved(args[0], "cpu")
        if name == "to" and isinstance(args[0], torch.Tensor):
            return _to(func, args, options)
        if name in ("tensor", "as_tensor") and is_away(options.get("device")):
            return Pretend(func(*args, **{**options, "device": "cpu"}))
        return func(*args, **options)


def _to(to: Any, args: Any, options: dict[str, Any]) -> Any:
    """`x.to(...)` in its forms: a device, a dtype, both, or another tensor's."""
    x, *rest = args
    devices = [one for one in rest if isinstance(one, str | torch.device)]
    like = [one for one in rest if isinstance(one, torch.Tensor)]
    device = options.pop("device", None) or next(iter(devices), None)
    if like:
        device = like[0].device
    options.pop("non_blocking", None)
    if device is None:
        return to(*args, **options)
    dtypes = [one for one in rest if isinstance(one, torch.dtype)] + [one.dtype for one in like]
    x = moved(x, device)
    return to(x, *dtypes, **options) if dtypes or options else x


def moved(x: torch.Tensor, device: Any) -> torch.Tensor:
    """The tensor there; gradients find their way back."""
    if is_away(x.device) == is_away(device):
        return x
    return _Move.apply(x, device)  # type: ignore[return-value]


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, device: Any) -> torch.Tensor:
        ctx.was = x.device
        copied = plain(x).detach().clone()
        return Pretend(copied) if is_away(device) else copied

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        inner = plain(gradients[0])
        return (Pretend(inner) if is_away(ctx.was) else inner), None


@contextlib.contextmanager
def pretend_accelerator() -> Iterator[None]:
    """Within the block the device "meta" is one that computes."""
    with Operations(), Moves():
        yield
