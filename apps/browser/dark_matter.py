"""The dark-matter section of a run's overview as HTML: what the SAE misses, and how much of it is
linear in the activation."""

from collections.abc import Mapping
from typing import Any

from .draw import estimate, number, text

PARTS = (("error", "fvu", None, None), ("linear", "fvu_linear", "share_linear", "ce_share_linear"),
         ("nonlinear", "fvu_nonlinear", "share_nonlinear", "ce_share_nonlinear"))  # fmt: skip
HEADS = (
    ("FVU", "sum of squares of this part over the activations' variance"),
    ("of the error", "this part's share of the error's sum of squares"),
    (
        "of the loss",
        "of the cross-entropy the SAE costs, the share that adding this part back undoes",
    ),
    ("noise as long", "the same for random directions of this part's lengths"),
)
SCORES = (
    (
        "linear_r2",
        "R² error",
        "share of the error's variance that a linear map of the activation predicts on held-out tokens",
    ),
    ("norm_r2", "R² squared length", "the same for the error's squared length"),
)


def section(found: Mapping[str, Any]) -> str:
    """The section for a run's dark-matter.json."""
    (entry,) = found["runs"]
    size = f"{entry['tokens']:,} held-out tokens, linear map fitted on {entry['tokens_fitted']:,}"
    heads = "".join(f'<th class="n" title="{text(why)}">{name}</th>' for name, why in HEADS)
    parts = "".join(_part(entry, *part) for part in PARTS)
    split = f'<table class="grid report"><thead><tr><th></th>{heads}</tr></thead><tbody>{parts}</tbody></table>'
    names = (
        "this SAE",
        "95% interval",
        "null",
        *(name.replace("_", " ") for name in entry["controls"]),
    )
    heads = "".join(f'<th class="n">{text(name)}</th>' for name in names)
    rows = "".join(_score(entry, *score) for score in SCORES)
    scores = f'<table class="grid report"><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f"<h2>Dark matter <small>{size}</small></h2>{split}{scores}"


def _part(
    entry: Mapping[str, Any], name: str, fvu: str, share: str | None, loss: str | None
) -> str:
    cells = [estimate(entry[key]) if key else "–" for key in (fvu, share, loss)]
    cells.append(number(entry[loss]["null"]) if loss else "–")
    body = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    return f"<tr><td>{name}</td>{body}</tr>"


def _score(entry: Mapping[str, Any], key: str, name: str, why: str) -> str:
    metric = entry[key]
    cells = [
        f"<b>{number(metric['value'])}</b>",
        f"{number(metric['low'])} to {number(metric['high'])}",
        number(metric["null"]),
    ]
    cells += [number(control[key]["value"]) for control in entry["controls"].values()]
    body = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    return f'<tr><td title="{text(why)}">{name}</td>{body}</tr>'
