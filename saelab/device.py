"""Which device to compute on: the one asked for, or this machine's best."""

from saelab.errors import UsageError


def chosen(name: str | None = None) -> str:
    """The device of that name, which this machine has; without a name `cuda` where there is one,
    else `cpu`.

    Raises UsageError for a device that torch does not know, or that this machine lacks.

        model = models.load("bundled", chosen())
        sae = sae.to(chosen("cuda:1"))
    """
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if reason := _lacking(name):
        raise UsageError(f"there is no device {name!r} here ({reason}): --device cpu is everywhere")
    return name


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
