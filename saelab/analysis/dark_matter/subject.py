"""The sums of one SAE whose errors are studied, and of controls whose scores are known in advance.

Shapes: N tokens, D width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from saelab.analysis.dark_matter import decomposition, linear
from saelab.analysis.dark_matter.decomposition import Map
from saelab.coder import Coder
from saelab.sae import SAE
from saelab.statistics import DocumentSums

CONTROL_TOKENS = 100_000  # the controls' maps are fitted on no more
CONTROLS = ("dead", "shrunk", "permuted", "random_init")
LOSSES = (
    "predictions",
    "clean",
    "spliced",
    "linear",
    "nonlinear",
    "noise_linear",
    "noise_nonlinear",
)


class Subject:
    """One SAE under study: its reconstructions, the sums its maps are fitted from, and what its
    scored tokens add up to."""

    def __init__(self, sae: SAE, untrained: Coder, hook: str, seed: int) -> None:
        self.sae, self.hook = sae, hook
        self.random = torch.Generator().manual_seed(seed)
        self.untrained = untrained
        n_targets, device = sae.d_model + 1, sae.W_enc.device
        self.own = linear.Sums(sae.d_model, n_targets, device)
        self.controls = linear.Sums(sae.d_model, len(CONTROLS) * n_targets, device)
        self.maps: dict[str, Map] = {}
        self.sums = {name: DocumentSums() for name in ("sae", *CONTROLS)}
        self.losses = DocumentSums()
        self.norms: list[Tensor] = []

    def control_errors(self, x_ND: Tensor, error_ND: Tensor) -> Iterator[Tensor]:
        """Errors whose scores are known in advance, in the order of CONTROLS: a dead SAE's and a
        perfect one's shrunk by a fifth

        are linear in x, an error that belongs to other tokens is not; and that of an SAE that was
        never trained.
        """
        yield x_ND - self.sae.b_dec
        yield x_ND * 0.2
        yield error_ND[torch.randperm(len(error_ND), generator=self.random)]
        yield x_ND - self.untrained(x_ND)

    def add(self, x_ND: Tensor) -> None:
        """Add fitting tokens."""
        x_ND = x_ND.to(self.sae.W_enc)
        error_ND = x_ND - self.sae(x_ND)
        self.own.add(x_ND, decomposition.targets(error_ND))
        if self.controls.n < CONTROL_TOKENS:
            errors = self.control_errors(x_ND, error_ND)
            self.controls.add(x_ND, torch.cat([decomposition.targets(e) for e in errors], 1))

    def solve(self, ridge: float) -> None:
        """Fit the maps. Raises UsageError for too few tokens."""
        self.maps["sae"] = decomposition.split(linear.solve(self.own, ridge=ridge))
        whole = linear.solve(self.controls, ridge=ridge)
        for i, name in enumerate(CONTROLS):
            part = slice(i * (self.sae.d_model + 1), (i + 1) * (self.sae.d_model + 1))
            self.maps[name] = decomposition.split(
                whole._replace(weight=whole.weight[:, part], bias=whole.bias[part])
            )

    def score(self, x_ND: Tensor, owners_N: Tensor) -> tuple[Tensor, Tensor]:
        """Add scored tokens; the error and its linear part."""
        error_ND = x_ND - self.sae(x_ND)
        for name, e_ND in zip(
            ("sae", *CONTROLS), (error_ND, *self.control_errors(x_ND, error_ND)), strict=True
        ):
            map = self.maps[name]
            self.sums[name].add(
                owners_N, decomposition.columns(x_ND, e_ND, map.error(x_ND), map.norm(x_ND))
            )
        linear_ND = self.maps["sae"].error(x_ND)
        norms = [error_ND.norm(dim=1), (error_ND - linear_ND).norm(dim=1)]
        self.norms.append(torch.stack(norms, 1).cpu())
        return error_ND, linear_ND

    def replacements(self, x_ND: Tensor, error_ND: Tensor, linear_ND: Tensor) -> dict[str, Tensor]:
        """What the model sees in x's place, by name of LOSSES: x_hat alone, with one part of the
        error, or with noise as long."""
        x_hat_ND, parts = x_ND - error_ND, {"linear": linear_ND, "nonlinear": error_ND - linear_ND}
        noise_ND = torch.randn(x_ND.shape, generator=self.random).to(x_ND)
        noise_ND = torch.nn.functional.normalize(noise_ND, dim=1)
        noises = {
            f"noise_{name}": noise_ND * part.norm(dim=1, keepdim=True)
            for name, part in parts.items()
        }
        return {"spliced": x_hat_ND} | {
            name: x_hat_ND + part for name, part in (parts | noises).items()
        }
