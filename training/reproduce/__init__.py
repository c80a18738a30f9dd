"""Reproductions of papers: each module measures one paper's claims on the bundled model and on
ground truth."""

import importlib
from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError

from .claims import Claim, Settings

if TYPE_CHECKING:
    from .grid import Size, Study

# name on the command line: what is compared. The module of the same name, with underscores, has
# `claims(settings)`.
PAPERS = {
    "mutual-feature-choice": "Ayonrinde 2024: budgets over features or the batch against TopK",
    "g-sae": "Olmo et al. 2025: features chosen with the loss's gradient against TopK",
    "abstopk": "Zhu et al. 2025: signed features against TopK of the same and of twice the width",
    "supervised": "Makelov et al. 2024: supervised dictionaries against SAEs in sparse control; "
    "occlusion and over-splitting",
    "attention": "Kissane et al. 2024: SAEs of attention outputs, what heads are about, induction",
    "circuits": "O'Neill and Bui 2024: heads found by the codes of one small SAE, on three tasks "
    "and a compiled circuit",
    "dark-matter": "Engels, Smith and Tegmark 2024: how much of an SAE's error is linear in the "
    "activation",
    "orthogonal-dictionary": "Xue and Lau 2021: an orthogonal dictionary found by Frank-Wolfe",
    "visual-discovery": "Stevens et al. 2025: concepts that nobody told, by SAEs and label-free "
    "dictionaries",
    "prosper": "Exarchakis et al. 2019: bars found by truncated expectation maximisation",
    "cospadi": "CoSpaDi 2025: weights as calibrated sparse dictionaries against low rank",
}


def claims(paper: str, settings: Settings) -> list[Claim]:
    """The paper's claims, measured. Raises UsageError for a paper that is not in PAPERS."""
    return _module(paper).claims(settings)


def studies(paper: str, settings: Settings, size: "Size") -> "list[Study]":
    """What a grid measures of a paper. Raises UsageError for one without a grid."""
    module = _module(paper)
    if not hasattr(module, "studies"):
        raise UsageError(f"{paper} has no grid: leave --grid out")
    return module.studies(settings, size)


def _module(paper: str) -> Any:
    """The paper's module."""
    if paper not in PAPERS:
        raise UsageError(f"no paper {paper!r}; there are {', '.join(PAPERS)}")
    return importlib.import_module(f".{paper.replace('-', '_')}", __name__)
