"""SAEs written as SAELens 6 keeps a finished one.

Shapes: F features.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab.formats import hooks, tensors
from saelab.formats.refusing import of_skip, refuse
from saelab.formats.saelens import HEADER, KEPT, WEIGHTS
from saelab.sae import SAE
from saelab.sparsify import Choice, Sparsify, Threshold

VERSION = "6.0.0"  # the first whose reader takes this form


def write(sae: SAE, path: Path) -> None:
    """Write an SAE or transcoder as SAELens 6 keeps a finished one. Raises UsageError for what it
    has no class for.

    >>> formats.save(sae, "saes/for-saelens", "saelens")
    """
    sae = sae.frozen()
    refuse(sae, "saelens", chain(of_skip(sae), _without_class(sae)))
    levels_F = _levels(sae)
    tensors_ = {
        "W_enc": sae.W_enc.T,
        "b_enc": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
        **({} if levels_F is None else {"threshold": levels_F}),
        **({} if sae.W_skip is None else {"W_skip": sae.W_skip}),
    }
    tensors.write_safetensors(tensors_, path / WEIGHTS)
    tensors.write_fields(_cfg(sae, levels_F is not None), path / HEADER)


def _without_class(sae: SAE) -> Iterator[str]:
    if isinstance(sae.sparsify, Choice) and sae.transcoder:
        yield "a transcoder with a top-k has no class there"
    if isinstance(sae.sparsify, Threshold) and sae.sparsify.signed:
        yield "a signed threshold has no class there"


def _levels(sae: SAE) -> Tensor | None:
    """[F] what values must exceed, None where that is 0."""
    if not isinstance(sae.sparsify, Threshold):
        return None
    if sae.levels is not None:
        return sae.levels
    return torch.full_like(sae.b_enc, sae.sparsify.level) if sae.sparsify.level else None


def _architecture(sae: SAE, has_levels: bool) -> str:
    if isinstance(sae.sparsify, Choice):
        return "abstopk" if sae.sparsify.signed else "topk"
    if not sae.transcoder:
        return "jumprelu" if has_levels else "standard"
    skip = "_skip" if sae.W_skip is not None else ""
    if has_levels:
        return f"jumprelu{skip}_transcoder"
    return "skip_transcoder" if skip else "transcoder"


def _cfg(sae: SAE, has_levels: bool) -> dict[str, Any]:
    form, origin = sae.sparsify, sae.origin
    hook, target = (hooks.for_transformer_lens(name) for name in origin.hooks)
    metadata = {
        "sae_lens_version": VERSION,
        "sae_lens_training_version": None,
        "model_name": origin.model.name if origin.model else None,
        "hook_name": hook,
        "hook_head_index": None,
        **({"hook_name_out": target} if sae.transcoder else {}),
        "training_architecture": origin.sparsify,
        **{name: value for name, value in origin.more.items() if name in KEPT},
    }
    return {
        "architecture": _architecture(sae, has_levels),
        "d_in": sae.d_model,
        "d_sae": sae.n_features,
        **({"d_out": len(sae.b_dec)} if sae.transcoder else {}),
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": not sae.transcoder,
        "normalize_activations": sae.token_norm or "none",
        "reshape_activations": "hook_z" if hook.endswith("hook_z") else "none",
        **_k(form),
        "metadata": metadata,
    }


def _k(form: Sparsify) -> dict[str, Any]:
    return {"k": form.k, "rescale_acts_by_decoder_norm": False} if isinstance(form, Choice) else {}
