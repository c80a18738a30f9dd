"""A pretend accelerator, for tests on machines without one.

Within `pretend_accelerator()` tensors on the device "pretend" hold real values and compute on the
CPU, but say that they lie elsewhere and refuse what a card refuses: a CPU tensor of one dimension
or more in the same operation, `.numpy()`, a CPU generator. The device takes the place that torch
keeps for devices it does not know; outside the block there is none of that name.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as setup

NAME = "pretend"
aten = torch.ops.aten
# Their indices may lie on the CPU, on a card too; what they index may not.
TAKE_CPU_INDICES = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
)


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
            device=torch.device(NAME, 0),
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretend({self.inner!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor of the accelerator to numpy: use .cpu() first")

    def untyped_storage(self) -> Any:
        """Where it lies, by which safetensors tells tensors that share memory."""
        return self.inner.untyped_storage()

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
    return device is not None and torch.device(device).type == NAME


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
    bound = (args[0], *args[2:]) if func in TAKE_CPU_INDICES else args
    ours = [t for t in _tensors((args, kwargs)) if isinstance(t, Pretend)]
    astray = [t for t in _tensors((bound, kwargs)) if not isinstance(t, Pretend) and t.dim() > 0]
    if ours and astray:
        raise RuntimeError(f"{func}: not on the same device, but the accelerator and the CPU")
    makes = bool(ours) or is_away(device)
    _count(func, args, makes)
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


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]


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
        if name in ("__getitem__", "__setitem__"):  # lists become tensors beyond our reach
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(at) if isinstance(at, list) else at for at in index)
            return func(args[0], index, *args[2:])
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


PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)


@dataclass
class Products:
    """Multiplications of matrix products, by where they were done."""

    here: int = 0
    away: int = 0


_counting: list[Products] = []


def _count(func: Any, args: Any, away: bool) -> None:
    if func not in PRODUCTS or not _counting:
        return
    one, other = args[-2:]
    n = one.numel() * other.shape[-1]
    _counting[-1].here += 0 if away else n
    _counting[-1].away += n if away else 0


@contextlib.contextmanager
def products() -> Iterator[Products]:
    """What is multiplied within the block, on the accelerator and elsewhere."""
    _counting.append(Products())
    try:
        yield _counting[-1]
    finally:
        _counting.pop()


class _Hook(torch._C._acc.PrivateUse1Hooks):
    """What torch asks of a device that it does not know."""

    here = False

    def is_available(self) -> bool:
        return _Hook.here

    def has_primary_context(self, dev_id: int) -> bool:
        return _Hook.here

    def is_built(self) -> bool:
        return True


class _Module(_DummyBackendModule):
    """What `torch.pretend` is."""

    def is_available(self) -> bool:
        return _Hook.here


@functools.cache
def _register() -> None:
    """Make the device known, once in a process: torch takes no name back.

    A gradient comes first: as there is no device yet, torch starts no threads for gradients, and a
    process that it has started none in may be forked.
    """
    torch.zeros(1, requires_grad=True).sum().backward()
    setup(NAME, _Module(), _Hook())


@contextlib.contextmanager
def pretend_accelerator() -> Iterator[None]:
    """Within the block there is a device "pretend".

    Gradients are computed in the thread that asks for them, as the device has none of its own.
    """
    _register()
    _Hook.here = True
    try:
        with Operations(), Moves(), torch.autograd.set_multithreading_enabled(False):
            yield
    finally:
        _Hook.here = False
