"""An SAE as the object that SAEBench evaluates.

Shapes: F features, D width.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from saelab.errors import UsageError
from saelab.formats.hooks import INSIDE, for_transformer_lens
from saelab.formats.refusing import of_skip, of_tokens, refuse
from saelab.sae import SAE
from saelab.sparsify import Choice, word


@dataclass
class Config:
    """What SAEBench asks of an SAE, by its names."""

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    architecture: str
    dtype: str
    device: str = "cpu"
    context_size: int | None = None
    hook_head_index: int | None = None
    apply_b_dec_to_input: bool = True
    finetuning_scaling_factor: bool = False
    activation_fn_str: str = "relu"
    activation_fn_kwargs: dict[str, Any] = field(default_factory=dict)
    prepend_bos: bool = True
    normalize_activations: str = "none"
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    dataset_path: str = ""
    dataset_trust_remote_code: bool = False
    seqpos_slice: tuple[int | None, ...] = (None,)
    training_tokens: int = -1
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class Adapter(nn.Module):
    """An SAE with SAEBench's interface: dense codes, weights the other way round, rows of W_dec of
    unit norm. See `adapter`."""

    W_enc: nn.Parameter
    """[D, F]"""
    b_enc: nn.Parameter
    """[F]"""
    W_dec: nn.Parameter
    """[F, D]"""
    b_dec: nn.Parameter
    """[D]"""
    norms: Tensor
    """[F] of the SAE's own rows, which codes are multiplied by"""

    def __init__(self, sae: SAE, cfg: Config) -> None:
        super().__init__()
        norms_F = sae.W_dec.detach().norm(dim=1)
        norms_F = torch.where(norms_F == 0, 1.0, norms_F)
        self.register_buffer("norms", norms_F)
        self.sae, self.cfg = sae, cfg
        self.W_enc = nn.Parameter((sae.W_enc.detach() * norms_F[:, None]).T)
        self.b_enc = nn.Parameter(sae.b_enc.detach() * norms_F)
        self.W_dec = nn.Parameter(sae.W_dec.detach() / norms_F[:, None])
        self.b_dec = nn.Parameter(sae.b_dec.detach().clone())
        self.device, self.dtype = sae.W_enc.device, sae.W_enc.dtype

    def encode(self, x: Tensor) -> Tensor:
        """[..., F] of x [..., D]. Features are chosen in float32 whatever the dtype."""
        code = self.sae.encode(x.to(self.sae.W_enc))
        dense_BF = code.to_dense() * self.norms
        return dense_BF.reshape(*x.shape[:-1], -1).to(self.dtype)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """[..., D] of codes [..., F]."""
        return feature_acts @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] of x [..., D]."""
        return self.decode(self.encode(x))

    def to(  # type: ignore[override]
        self,
        device: torch.device | str | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Adapter":
        """The device of everything, the dtype of its own weights and of what it returns."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            super().to(device)
        if dtype is not None:
            for weight in (self.W_enc, self.b_enc, self.W_dec, self.b_dec):
                weight.data = weight.data.to(dtype)
        self.device, self.dtype = self.W_enc.device, self.W_enc.dtype
        self.cfg.device, self.cfg.dtype = str(self.device), _word(self.dtype)
        return self


def adapter(sae: SAE) -> Adapter:
    """An SAE as the object that SAEBench's evaluations take: `[("name", adapter(sae))]`.

    Holds a second copy of the weights, and codes as dense as SAEBench asks for them. Raises
    UsageError for what it has no place for: transcoders, skips, a normalisation of tokens, hooks
    outside of layers.

    >>> mine = saebench.adapter(SAE.load("runs/a"))
    >>> mine.cfg.hook_name, mine.encode(x_BD).shape
    """
    sae = sae.frozen()
    reasons = chain(of_tokens(sae), of_skip(sae), _elsewhere(sae))
    refuse(sae, "saebench", reasons, own=True)
    return Adapter(sae, config(sae))


def _elsewhere(sae: SAE) -> Iterator[str]:
    if sae.transcoder:
        yield "it is a transcoder, and SAEBench puts what it decodes where it has read"
    if not INSIDE.fullmatch(sae.origin.hook):
        yield f"its hook {sae.origin.hook!r} is in no layer, and SAEBench wants a layer's number"


def config(sae: SAE) -> Config:
    """What SAEBench asks of an SAE. Raises UsageError for a hook that is in no layer."""
    hook, origin, form = INSIDE.fullmatch(sae.origin.hook), sae.origin, sae.sparsify
    if hook is None:
        raise UsageError(f"{sae!r} reads no layer, and SAEBench wants a layer's number")
    is_choice = isinstance(form, Choice)
    return Config(
        model_name=origin.model.name if origin.model else "",
        d_in=sae.d_model,
        d_sae=sae.n_features,
        hook_layer=int(hook[1]),
        hook_name=for_transformer_lens(origin.hook),
        architecture=origin.sparsify or word(form).split()[0],
        dtype=_word(sae.W_enc.dtype),
        device=str(sae.W_enc.device),
        activation_fn_str="topk" if is_choice else "relu",
        activation_fn_kwargs={"k": form.k} if is_choice else {},
        training_tokens=origin.tokens if origin.tokens is not None else -1,
    )


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
