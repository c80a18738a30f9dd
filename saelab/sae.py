"""SAE: a sparse autoencoder (or transcoder) over one hook point, its inference form, its file.

Shapes: B tokens, F features, D width, N pairs.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from saelab import initial, jump, kernels, sparsify
from saelab.calibration import first_tokens, levels
from saelab.code import Code
from saelab.dictionaries.encoders import Encoder
from saelab.errors import UsageError
from saelab.kernels import autograd
from saelab.origin import Origin
from saelab.sparsify import Choice, Sparsify, Threshold
from saelab.token_norm import TokenNorm, normalised, unit_gradient

CALIBRATION_TOKENS = 500_000


class SAE(nn.Module):
    """pre = (x - b_dec) W_enc^T + b_enc; z keeps the pairs `sparsify` picks; x_hat = z W_dec +
    b_dec.

    W_enc [F, D], b_enc [F], W_dec [F, D_out] with rows of unit norm, b_dec [D_out]. A transcoder (a
    target other than the input) subtracts nothing from its input, may have D_out != D, and an
    optional linear skip [D_out, D]. levels [F]: inference thresholds of batch and feature budgets
    (see `calibrate`), or those a Threshold with a bandwidth learns. part: of all features those
    that this one holds. Raises UsageError if k exceeds n_features.

    >>> sae = SAE(d_model=64, n_features=1024, sparsify=Choice(k=16))
    >>> x_hat_BD, code = sae.reconstruct(x_BD)  # sae.encode(x_BD), then sae.decode(code)
    >>> sae.calibrate(batches)  # which a token budget does not need
    >>> sae.frozen().save("saes/mine", probe=x_BD[:8])
    """

    def __init__(
        self,
        d_model: int,
        n_features: int,
        sparsify: Sparsify,
        *,
        d_out: int | None = None,
        transcoder: bool = False,
        skip: bool = False,
        seed: int = 0,
        part: slice = slice(None),
    ) -> None:
        super().__init__()
        if d_out not in (None, d_model) and not transcoder:
            raise UsageError(f"d_out={d_out} with d_model={d_model}: only a transcoder has it")
        weights = initial.weights(d_model, n_features, d_out or d_model, not transcoder, seed, part)
        if isinstance(sparsify, Threshold) and sparsify.bandwidth:
            weights["levels"] = torch.full_like(weights["b_enc"], sparsify.level)
        if skip:
            weights["W_skip"] = torch.zeros(d_out or d_model, d_model)
        self._hold(weights, sparsify, transcoder)

    def _hold(self, weights: Mapping[str, Tensor], sparsify: Sparsify, transcoder: bool) -> None:
        n_features = len(weights["W_enc"])
        if isinstance(sparsify, Choice) and sparsify.k > n_features:
            raise UsageError(f"k={sparsify.k} is more than n_features={n_features}")
        self.sparsify, self.transcoder = sparsify, transcoder
        self.token_norm: TokenNorm = ""
        self.encoder: Encoder | None = None
        self.W_dec, self.W_enc = nn.Parameter(weights["W_dec"]), nn.Parameter(weights["W_enc"])
        self.b_enc, self.b_dec = nn.Parameter(weights["b_enc"]), nn.Parameter(weights["b_dec"])
        self.W_skip = nn.Parameter(weights["W_skip"]) if "W_skip" in weights else None
        self.levels: Tensor | None
        if self.learns_levels:
            self.levels = nn.Parameter(weights["levels"])
        else:
            self.register_buffer("levels", weights.get("levels"))
        self.origin = Origin()

    @classmethod
    def of(
        cls,
        weights: Mapping[str, Tensor],
        sparsify: Sparsify,
        *,
        transcoder: bool = False,
        token_norm: TokenNorm = "",
        encoder: Encoder | None = None,
    ) -> "SAE":
        """The SAE of given tensors, which are not copied: W_enc, b_enc, W_dec, b_dec; levels and
        W_skip where it has them.

        token_norm: how each token is normalised before it is encoded; `reconstruct` undoes it,
        `decode` alone does not. encoder: what codes tokens by W_dec in place of scores by W_enc, in
        up to the sparsifier's k pairs; its values have no gradient.

        >>> tensors = safetensors.torch.load_file("sae.safetensors")
        >>> sae = SAE.of(tensors, Choice(32))
        """
        sae = cls.__new__(cls)
        nn.Module.__init__(sae)
        sae._hold(weights, sparsify, transcoder)
        sae.token_norm, sae.encoder = token_norm, encoder
        return sae

    def __repr__(self) -> str:
        # What it was trained as says more than its inference form.
        form = self.origin.form or sparsify.word(self.sparsify)
        if not self.origin.form and isinstance(self.sparsify, Threshold):
            form = form if self.levels is None else "jumprelu"
        kind = "transcoder" if self.transcoder else "SAE"
        kind += " with a skip" if self.W_skip is not None else ""
        where = f", {self.origin}" if self.origin.hook else ""
        return f"{kind}({self.d_model} -> {self.n_features} -> {len(self.b_dec)}, {form}{where})"

    @property
    def d_model(self) -> int:
        """Width of the input."""
        return self.W_enc.shape[1]

    @property
    def layers(self) -> "tuple[SAE]":
        """Itself, as the one layer that it has."""
        return (self,)

    @property
    def n_features(self) -> int:
        """F."""
        return self.W_enc.shape[0]

    @property
    def learns_levels(self) -> bool:
        """Whether the levels are parameters: a Threshold with a bandwidth (JumpReLU)."""
        return isinstance(self.sparsify, Threshold) and self.sparsify.bandwidth > 0

    def encode(
        self,
        x: Tensor,
        grad: Tensor | None = None,
        budget: Tensor | None = None,
        choose: Callable[..., Code] = kernels.choose,
    ) -> Code:
        """The code of activations [..., D], leading dimensions flattened; values are differentiable
        in x and the parameters.

        grad [..., D_out]: dL/dx (a transcoder: of its target), needed when the sparsifier's beta is
        above 0. budget [F]: pairs per feature of this batch. choose: what picks the pairs. Raises
        ValueError for a width other than d_model, and for x on another device than the SAE.
        """
        kernels.check_together(x=x, SAE=self.W_enc, grad=grad)
        x_BD = normalised(x.reshape(-1, x.shape[-1]), self.token_norm).x
        if grad is not None:
            grad = unit_gradient(grad.reshape(len(x_BD), -1))
        centred_BD = x_BD.detach() if self.transcoder else x_BD.detach() - self.b_dec.detach()
        if self.encoder is not None:
            k = self.sparsify.k  # type: ignore[union-attr]
            return self.encoder(centred_BD, self.W_dec.detach(), k)
        weights = (self.W_enc.detach(), self.b_enc.detach())
        boost = {"grad": grad, "W_dec": self.W_dec.detach()}
        options = {**boost, "budget": budget, "level": self.levels}
        code = choose(centred_BD, *weights, self.sparsify, **options)
        if not torch.is_grad_enabled():
            return code
        code = autograd.encode(
            code, x_BD, None if self.transcoder else self.b_dec, self.W_enc, self.b_enc
        )
        if self.levels is not None and self.learns_levels:
            return jump.through(code, self.levels, self.sparsify.bandwidth)  # type: ignore[union-attr]
        return code

    def decode(self, code: Code) -> Tensor:
        """x_hat [B, D_out] of a code. A skip connection and a token's normalisation, which need x,
        are added and undone by calling the SAE."""
        return autograd.decode(code, self.W_dec) + self.b_dec

    def reconstruct(self, x: Tensor, grad: Tensor | None = None) -> tuple[Tensor, Code]:
        """x_hat [..., D_out] of x [..., D], skip included, and the code it is made from."""
        code = self.encode(x, grad)
        given = normalised(x.reshape(-1, self.d_model), self.token_norm)
        x_hat_BD = given.undo(autograd.decode(code, self.W_dec) + self.base(given.x))
        return x_hat_BD.reshape(*x.shape[:-1], -1), code

    def base(self, x_BD: Tensor) -> Tensor:
        """What an empty code decodes to: b_dec [D_out]; with a skip, plus that of x [B, D_out]."""
        return self.b_dec if self.W_skip is None else self.b_dec + x_BD @ self.W_skip.T

    def forward(self, x: Tensor, grad: Tensor | None = None) -> Tensor:
        """x_hat [..., D_out] of x [..., D]."""
        return self.reconstruct(x, grad)[0]

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale the rows of W_dec to unit norm."""
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-20)

    @torch.no_grad()
    def calibrate(
        self,
        batches: Iterable[Tensor],
        n_tokens: int = CALIBRATION_TOKENS,
        share: Tensor | None = None,
    ) -> None:
        """Set the levels: the training budget applied once to the first n_tokens of `batches` ([B,
        D] each) as a single batch.

        Batch budget: one level, the smallest kept score. Feature budget: one per feature, shared
        out in proportion to `share` [F] (default: equally). Scores leave the gradient out. Never
        below 0; a level is just below the smallest kept value, which so still passes. All other
        sparsifiers need none. Raises UsageError without tokens.
        """
        if not isinstance(self.sparsify, Choice) or self.sparsify.over == "token":
            return
        shift = 0 if self.transcoder else self.b_dec
        pieces = (x_BD.to(self.W_enc) for x_BD in first_tokens(batches, n_tokens))
        centred = [normalised(x_BD, self.token_norm).x - shift for x_BD in pieces]
        self.levels = levels(centred, self.W_enc, self.b_enc, self.sparsify, share)

    def frozen(self) -> "SAE":
        """The inference form: a new SAE that shares the weights and codes every token by itself.
        Raises UsageError if its levels have not been calibrated."""
        form = sparsify.inference_form(self.sparsify)
        needs_levels = isinstance(form, Threshold) and isinstance(self.sparsify, Choice)
        if needs_levels and self.levels is None:
            raise UsageError(
                f"{self.sparsify} has no inference levels yet: call calibrate(batches) first"
            )
        twin = copy.copy(self)
        twin._parameters, twin._buffers = dict(self._parameters), dict(self._buffers)
        twin.sparsify = form
        if "levels" in twin._parameters:  # which learns no more
            twin._buffers["levels"] = self.levels.detach()  # type: ignore[union-attr]
            del twin._parameters["levels"]
        return twin

    def save(self, directory: Path | str, probe: Tensor | None = None) -> None:
        """Write sae.safetensors and sae.json into `directory`, each atomically. probe [n, D]: raw
        activations whose reconstruction error `load` checks (default: Gaussian rows)."""
        from saelab import formats

        formats.save(self, directory, probe=probe)

    @staticmethod
    def load(directory: Path | str) -> "SAE":
        """Read an SAE from a run, from its `sae/`, or from a published folder or file of a known
        form: `SAE.load("runs/demo")`. Raises UsageError for files of no known form or version,
        FailedRun if it is not the function that was saved, by its error on a probe."""
        from saelab import formats

        return formats.load(directory)
