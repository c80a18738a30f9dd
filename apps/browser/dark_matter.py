"""The dark-matter section of a run's overview as HTML: what the SAE misses, and how much of it is
linear in the activation."""

from collections.abc import Mapping
from typing import Any

from .draw import estimate, grid, head, number, row, text, title
from .html import Markup

# name: the keys of its variance unexplained, of its share of the error and of the loss
PARTS = {
    "error": ("fvu", None, None),
    "linear": ("fvu_linear", "share_linear", "ce_share_linear"),
    "nonlinear": ("fvu_nonlinear", "share_nonlinear", "ce_share_nonlinear"),
}
HEADS = {
    "FVU": "sum of squares of this part over the activations' variance",
    "of the error": "this part's share of the error's sum of squares",
    "of the loss": "of the cross-entropy that the SAE costs, the share that adding this part back "
    "undoes",
    "noise as long": "the same for random directions of this part's lengths",
}
SCORES = (
    (
        "linear_r2",
        "R² error",
        "share of the error's variance that a linear map of the activation predicts on held-out "
        "tokens",
    ),
    ("norm_r2", "R² squared length", "the same for the error's squared length"),
)


def section(document: Mapping[str, Any]) -> Markup:
    """The section for a run's dark-matter.json."""
    (run,) = document["runs"]
    size = f"{run['tokens']:,} held-out tokens, linear map fitted on {run['tokens_fitted']:,}"
    heads = [head(name, title=why) for name, why in HEADS.items()]
    parts = [_part(run, name, *keys) for name, keys in PARTS.items()]
    split = grid([head("", ""), *heads], parts, "report")
    controls = [text(name.replace("_", " ")) for name in run["controls"]]
    heads = map(head, ("this SAE", "null", *controls))
    scores = grid([head("", ""), *heads], [_score(run, *score) for score in SCORES], "report")
    return title("Dark matter", size) + split + scores


def _part(
    run: Mapping[str, Any], name: str, fvu: str, share: str | None, loss: str | None
) -> Markup:
    shares = [estimate(run[key]) if key else "–" for key in (fvu, share, loss)]
    noise = number(run[loss]["null"]) if loss else "–"
    return row(name, *shares, noise)


def _score(run: Mapping[str, Any], key: str, name: str, why: str) -> Markup:
    metric = run[key]
    controls = [number(control[key]["value"]) for control in run["controls"].values()]
    return row(name, estimate(metric), number(metric["null"]), *controls, title=why)
