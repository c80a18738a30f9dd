"""A cross-layer transcoder: one encoder per layer, whose features write to that layer's output and
to all later ones; the outputs share one residual.

Shapes: B tokens, L layers, F features per layer, D width in, E width out, N pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saelab import initial, kernels, sparsify
from saelab.calibration import common_level, first_tokens
from saelab.code import Code
from saelab.errors import UsageError
from saelab.kernels import autograd
from saelab.layer_codes import Choose, by_layer, picked, side_by_side
from saelab.origin import Origin
from saelab.sae import CALIBRATION_TOKENS
from saelab.sparsify import BuiltIn, Choice, Sparsify, Threshold


class Layer(nn.Module):
    """The features of one layer: W_enc [F, D], b_enc [F], W_dec [F, (L - i) E], a row's first E
    numbers for the own layer's output; levels [F], the inference thresholds, or None."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.W_enc, self.W_dec = nn.Parameter(weights["W_enc"]), nn.Parameter(weights["W_dec"])
        self.b_enc = nn.Parameter(weights["b_enc"])
        self.levels: Tensor | None
        self.register_buffer("levels", weights.get("levels"))


class CrossLayerTranscoder(nn.Module):
    """z_i = the pairs that `sparsify` picks of W_enc_i x_i + b_enc_i; y_hat_j = b_dec_j + sum over
    i <= j of z_i W_dec_i->j (Ameisen et al. 2025, "Circuit Tracing").

    Inputs and outputs of all layers lie side by side: x [B, L D], y_hat [B, L E]. Feature f of
    layer i is number i F + f of a code. A token budget gives each layer k pairs per token; a batch
    budget k L pairs per token over all layers together. With L = 1 it is a transcoder. Raises
    UsageError for other sparsifiers in training form, and if k exceeds F.

    >>> clt = CrossLayerTranscoder(n_layers=4, d_model=256, n_features=1024, sparsify=Choice(32))
    >>> y_hat_BE, code = clt.reconstruct(x_BD)  # both of all four layers
    """

    transcoder, W_skip, levels, learns_levels, token_norm = True, None, None, False, ""  # of SAEs
    layers: Any  # a ModuleList of `Layer`, of whose members torch's types know nothing

    def __init__(
        self,
        n_layers: int,
        d_model: int,
        n_features: int,
        sparsify: Sparsify,
        *,
        d_out: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        d_out = d_out or d_model
        drawn = [
            initial.weights(d_model, n_features, (n_layers - i) * d_out, False, seed + (i << 32))
            for i in range(n_layers)  # with numbers that no layer of another seed has
        ]
        self._hold(drawn, torch.zeros(n_layers * d_out), sparsify)

    def _hold(self, layers: Sequence[Mapping[str, Tensor]], b_dec: Tensor, form: Sparsify) -> None:
        self.layers = nn.ModuleList(map(Layer, layers))
        self.b_dec = nn.Parameter(b_dec)
        self.origin = Origin()
        if problem := self._problem(form):
            raise UsageError(problem)
        assert isinstance(form, Choice | Threshold)
        self.sparsify: BuiltIn = form

    @classmethod
    def of(
        cls, layers: Sequence[Mapping[str, Tensor]], b_dec: Tensor, sparsify: Sparsify
    ) -> "CrossLayerTranscoder":
        """That of given tensors, which are not copied: of each layer W_enc, b_enc, W_dec and, if it
        has them, levels; b_dec [L E]. Raises UsageError for shapes that do not fit: a feature of
        layer i writes to L - i outputs, none of them before its own.
        """
        nn.Module.__init__(clt := cls.__new__(cls))
        clt._hold(layers, b_dec, sparsify)
        return clt

    def _problem(self, form: Sparsify) -> str:
        """What is wrong with the shapes or the sparsifier, "" if nothing is."""
        n_layers, (n_features, d_model) = self.n_layers, self.layers[0].W_enc.shape
        width = len(self.b_dec) // n_layers
        for i, layer in enumerate(self.layers):
            due = ((n_features, d_model), (n_features, (n_layers - i) * width))
            if (found := (tuple(layer.W_enc.shape), tuple(layer.W_dec.shape))) != due:
                return (
                    f"layer {i} of {n_layers} has W_enc and W_dec of {found}, not {due}: its "
                    f"features write to {n_layers - i} outputs, its own and all later ones"
                )
        if isinstance(form, Choice):
            if form.over == "feature" or form.beta:
                return "a cross-layer transcoder takes topk, abstopk, batchtopk or signed-batchtopk"
            if form.k > n_features:
                return f"k={form.k} is more than the {n_features} features of a layer"
        elif not isinstance(form, Threshold) or form.bandwidth:
            return "a cross-layer transcoder has a budget in training and levels in inference"
        return ""

    def __repr__(self) -> str:
        form = self.origin.form or sparsify.word(self.sparsify)
        sizes = f"{self.n_layers} x ({self.width} -> {self.n_features // self.n_layers} -> "
        model = f" of {self.origin.model.name}" if self.origin.model else ""
        return f"cross-layer transcoder({sizes}{self.d_out // self.n_layers}), {form}{model})"

    @property
    def n_layers(self) -> int:
        """L."""
        return len(self.layers)

    @property
    def width(self) -> int:
        """D, of one layer's input."""
        return self.layers[0].W_enc.shape[1]

    @property
    def d_model(self) -> int:
        """L D, of all inputs side by side."""
        return self.n_layers * self.width

    @property
    def d_out(self) -> int:
        """L E, of all outputs side by side."""
        return len(self.b_dec)

    @property
    def n_features(self) -> int:
        """L F, of all layers together."""
        return sum(len(layer.b_enc) for layer in self.layers)

    def inputs(self, x: Tensor) -> list[Tensor]:
        """Each layer's input [B, D] of x [..., L D]."""
        if x.shape[-1] != self.d_model:
            raise ValueError(f"x is {x.shape[-1]} wide, {self.n_layers} layers take {self.d_model}")
        x_BD = x.reshape(-1, self.d_model)
        return [piece.contiguous() for piece in x_BD.split(self.width, 1)]

    def codes(self, xs: Sequence[Tensor], choose: Choose | None = None) -> list[Code]:
        """Each layer's code of its input [B, D]; values are differentiable in the inputs and the
        parameters. choose: what picks a layer's pairs."""
        codes = picked(xs, self.sparsify, choose or self.choose, len(self.layers[0].b_enc))
        if not torch.is_grad_enabled():
            return codes
        return [
            autograd.encode(code, x_BD, None, layer.W_enc, layer.b_enc)
            for code, x_BD, layer in zip(codes, xs, self.layers, strict=True)
        ]

    def choose(self, x_BD: Tensor, i: int, form: BuiltIn) -> Code:
        """The code of layer i alone, of its input [B, D], without gradient."""
        layer = self.layers[i]
        weights = (layer.W_enc.detach(), layer.b_enc.detach())
        return kernels.choose(x_BD.detach(), *weights, form, level=layer.levels)

    def encode(self, x: Tensor) -> Code:
        """The code over all L F features of x [..., L D], leading dimensions flattened. Raises
        ValueError for another width."""
        kernels.check_together(x=x, CLT=self.b_dec)
        return side_by_side(self.codes(self.inputs(x)))

    def written(self, codes: Sequence[Code]) -> Tensor:
        """[B, L E]: what the layers' codes write, and b_dec."""
        width = self.d_out // self.n_layers
        total_BE = self.b_dec.repeat(codes[0].n_tokens, 1)
        for i, (code, layer) in enumerate(zip(codes, self.layers, strict=True)):
            total_BE[:, i * width :] += autograd.decode(code, layer.W_dec)
        return total_BE

    def decode(self, code: Code) -> Tensor:
        """y_hat [B, L E] of a code over all features."""
        return self.written(by_layer(code, self.n_layers))

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Code]:
        """y_hat [..., L E] of x [..., L D], and the code that it is made from."""
        kernels.check_together(x=x, CLT=self.b_dec)
        codes = self.codes(self.inputs(x))
        return self.written(codes).reshape(*x.shape[:-1], -1), side_by_side(codes)

    def forward(self, x: Tensor) -> Tensor:
        """y_hat [..., L E] of x [..., L D]."""
        return self.reconstruct(x)[0]

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale each feature's whole written row, over all its outputs, to unit norm."""
        for layer in self.layers:
            layer.W_dec /= layer.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-20)

    @torch.no_grad()
    def calibrate(
        self,
        batches: Iterable[Tensor],
        n_tokens: int = CALIBRATION_TOKENS,
        share: Tensor | None = None,
    ) -> None:
        """Set the levels of a batch budget: one for all layers, just below the smallest value that
        the budget keeps of the first n_tokens of `batches` ([B, L D] each) as a single batch. Other
        sparsifiers need none. Raises UsageError without tokens."""
        if not isinstance(self.sparsify, Choice) or self.sparsify.over == "token":
            return
        pieces = [self.inputs(x_BD.to(self.b_dec)) for x_BD in first_tokens(batches, n_tokens)]
        columns = [list(column) for column in zip(*pieces, strict=True)]
        weights = [(layer.W_enc, layer.b_enc) for layer in self.layers]
        level = common_level(columns, weights, self.sparsify)
        for layer in self.layers:
            layer.levels = level.expand(len(layer.b_enc)).clone()

    def frozen(self) -> "CrossLayerTranscoder":
        """The inference form: one that shares the weights and codes every token by itself. Raises
        UsageError if its levels have not been calibrated."""
        form = sparsify.inference_form(self.sparsify)
        lacks = any(layer.levels is None for layer in self.layers)
        if isinstance(form, Threshold) and isinstance(self.sparsify, Choice) and lacks:
            raise UsageError(f"{self.sparsify} has no levels yet: call calibrate(batches) first")
        held = [layer.state_dict(keep_vars=True) for layer in self.layers]
        twin = CrossLayerTranscoder.of(held, self.b_dec, form)
        twin.origin = self.origin
        return twin

    def save(self, directory: Path | str, probe: Tensor | None = None) -> None:
        """Write sae.safetensors and sae.json into `directory`, each atomically; see `SAE.save`."""
        from saelab import formats

        formats.save(self, directory, probe=probe)

    @staticmethod
    def load(directory: Path | str) -> "CrossLayerTranscoder":
        """Read one from a run, its `sae/`, or a folder of circuit-tracer's, and check that it is
        the function saved. Raises what `SAE.load` raises, UsageError for an SAE.

            clt = CrossLayerTranscoder.load("runs/clt")
        """
        from saelab import formats

        read = formats.load_any(directory)
        if not isinstance(read, CrossLayerTranscoder):
            raise UsageError(f"{directory} is an SAE of one place: SAE.load reads it")
        return read
