"""What a form of others cannot hold, said before anything is written."""

from collections.abc import Iterator

from saelab import joint
from saelab.errors import UsageError
from saelab.sae import SAE
from saelab.sparsify import Choice, Own, Sparsify, word


def refuse(sae: SAE, form: str, reasons: Iterator[str], *, own: bool = False) -> None:
    """Raise UsageError naming the first thing of an SAE that a form has no place for. own: whether
    a sparsifier of one's own is no such thing, as the form runs ours or runs none."""
    if isinstance(sae.sparsify, Own) and not own:
        raise UsageError(
            f"{sae!r} cannot be written as {form}: its sparsifier {sae.sparsify.name!r} is a "
            "function of one's own"
        )
    if sae.encoder is not None:
        raise UsageError(
            f"{sae!r} cannot be written as {form}: it codes tokens otherwise than by a score of "
            f"each feature ({type(sae.encoder).__name__})"
        )
    if len(hooks := joint.parts(sae.origin.hook)) > 1:
        raise UsageError(f"{sae!r} cannot be written as {form}: it reads {len(hooks)} hook points")
    if reason := next(reasons, None):
        raise UsageError(f"{sae!r} cannot be written as {form}: {reason}")


def of_tokens(sae: SAE) -> Iterator[str]:
    """Why a form without a normalisation of tokens cannot hold it."""
    if sae.token_norm:
        yield f"it normalises each token ({sae.token_norm}), which that form does not"


def of_skip(sae: SAE) -> Iterator[str]:
    """Why a form whose skips are transcoders' alone cannot hold it."""
    if sae.W_skip is not None and not sae.transcoder:
        yield "it is an autoencoder with a skip, which only transcoders have there"


def of_width(sae: SAE) -> Iterator[str]:
    """Why a form whose outputs are as wide as its inputs cannot hold it."""
    if len(sae.b_dec) != sae.d_model:
        yield f"it reads {sae.d_model} numbers and writes {len(sae.b_dec)}"


def of_sign(sae: SAE) -> Iterator[str]:
    """Why a form without signed values cannot hold it."""
    if sae.sparsify.signed:
        yield f"its values are signed ({_name(sae.sparsify)})"


def _name(form: Sparsify) -> str:
    return word(form) if isinstance(form, Choice) else "a signed threshold"
