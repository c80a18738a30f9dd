"""Every backend of `kernels.HOMES` for tests to run: on its own device where there is one, Triton
interpreted where there is no GPU."""

import importlib
import os
from types import ModuleType

import pytest
import torch

from saelab import Code, kernels
from tests.kernels.truth import Case

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

NAMES = list(kernels.HOMES)


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


def choose(name: str, case: Case, sparsify, **options) -> Code:
    """What a backend chooses, on the CPU. The reference chooses in float64, where it is exact."""
    module(name)
    dtype = torch.float64 if name == "reference" else torch.float32
    x, W, b, grad, W_dec = (tensor.to(device(name), dtype) for tensor in case)
    boost = {"grad": grad, "W_dec": W_dec} if getattr(sparsify, "beta", 0) else {}
    with kernels.backend(name):
        code = kernels.choose(x, W, b, sparsify, **boost, **options)
    return Code(code.starts.cpu(), code.features.cpu(), code.values.cpu(), code.n_features)
