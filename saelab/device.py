"""Whether this machine has a device, asked before anything is loaded."""

from saelab.errors import UsageError


def check(name: str) -> None:
    """Raise UsageError for a device that torch does not know, or that this machine lacks.

    check("cuda")
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without that device
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"there is no device {name!r} here ({reason}): --device cpu is everywhere"
        ) from None
