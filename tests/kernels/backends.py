"""Every backend of `kernels.HOMES` for tests to run: on its own device where there is one, Triton
interpreted where there is no GPU."""

import contextlib
import importlib
from types import ModuleType

import pytest
import torch
from torch import Tensor

from saelab import Code, kernels
from tests import native
from tests.kernels.truth import Case

NAMES = list(kernels.HOMES)

with contextlib.suppress(ModuleNotFoundError):
    native.patched_once()


def module(name: str) -> ModuleType:
    """A backend's module; the test is skipped where a library that it stands on is missing."""
    try:
        return importlib.import_module(kernels.HOMES[name].module)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("saelab"):
            raise
        pytest.skip(f"{name} needs {error.name}")


def device(name: str) -> str:
    """Where a backend's tensors lie: the first of its types of device that this machine has."""
    has = (kind for kind in kernels.HOMES[name].devices if getattr(torch, kind).is_available())
    return next(has, "cpu")


def there(name: str, *tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors where a backend's lie: every test that runs a backend takes its tensors from
    here, so that it runs on the card where there is one."""
    return [None if tensor is None else tensor.to(device(name)) for tensor in tensors]


def choose(name: str, case: Case, sparsify, **options) -> Code:
    """What a backend chooses, brought to the CPU. The reference chooses in float64, where it is
    exact."""
    module(name)
    dtype = torch.float64 if name == "reference" else torch.float32
    x, W, b, grad, W_dec = there(name, *(tensor.to(dtype) for tensor in case))
    boost = {"grad": grad, "W_dec": W_dec} if getattr(sparsify, "beta", 0) else {}
    moved = dict(zip(options, there(name, *options.values()), strict=True))
    with kernels.backend(name):
        code = kernels.choose(x, W, b, sparsify, **boost, **moved)
    return Code(code.starts.cpu(), code.features.cpu(), code.values.cpu(), code.n_features)
