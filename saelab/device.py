"""Which device to compute on: the one asked for, or this machine's best."""

import re

from saelab import ranks
from saelab.errors import UsageError

EXHAUSTED = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED")


def chosen(name: str | None = None) -> str:
    """The device of that name, which this machine has; without a name `cuda` where there is one,
    else `cpu`. Among several ranks `cuda` is the rank's own card.

    Raises UsageError for a device that torch does not know, or that this machine lacks.

        model = models.load("bundled", chosen())
        sae = sae.to(chosen("cuda:1"))
    """
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    name = ranks.device(name)
    if reason := _lacking(name):
        raise UsageError(f"there is no device {name!r} here ({reason}): --device cpu is everywhere")
    return name


def quick_dtype(device: str) -> str:
    """What a language model may compute activations in on a device: bfloat16 where that is quick
    (a GPU with units for it), else float32."""
    import torch

    if torch.device(device).type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        quick = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if quick else "float32"


def _lacking(name: str) -> str:
    """Why this machine has no such device, empty where it does."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        return "no device has such a name: cpu, cuda, cuda:1 are names"
    if device.type == "cuda" and (reason := _lacking_cuda(device.index or 0)):
        return reason
    try:
        torch.ones(1, device=device).tolist()  # torch knows devices that hold no values
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # each kind of device that this torch lacks says so in its own way
        return " ".join(str(error).split(". ")[0].split()) or type(error).__name__
    return ""


def _lacking_cuda(number: int) -> str:
    import torch

    if not torch.cuda.is_available():
        without = torch.version.cuda is None and torch.version.hip is None
        return "this torch was built without CUDA" if without else "no CUDA device is visible"
    if number >= (n_devices := torch.cuda.device_count()):
        return f"{n_devices} CUDA device{'s' * (n_devices > 1)}, counted from cuda:0"
    return ""


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """The error, or the one behind it, that says memory has run out on some device; None for
    another kind of error.

    Devices say so in their own ways: torch's allocator, the driver, the libraries of products.
    """
    while error is not None:
        says_so = isinstance(error, RuntimeError) and EXHAUSTED.search(str(error))
        if says_so or isinstance(error, MemoryError):
            return error
        error = error.__cause__ or error.__context__
    return None
