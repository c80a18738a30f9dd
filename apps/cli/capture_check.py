"""`saelab capture --check RUN`: what each dtype of a cache costs the SAE of a run.

saelab capture --check runs/demo
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import cell, document, finished, show
from .progress import bar

if TYPE_CHECKING:
    from saelab.activations import Cache

NAMED = 4  # dimensions named to people; the document names all


def run(
    folder: Path,
    model: str | None,
    cache: Path | None,
    *,
    place: dict[str, Any],
    n_tokens: int,
    seed: int,
    as_json: bool,
) -> int:
    """Measure with a progress bar on stderr; print a table. model, cache: where they lie now.
    place: device and dtype to compute in."""
    (folder,) = finished("capture --check", [folder])
    from saelab import opening
    from saelab.activations.plan import stored_bytes
    from saelab.evaluation import rounding

    opened = opening.open(folder, model, cache, **place)
    n_tokens = min(n_tokens, rounding.TOKENS, opened.cache.n_tokens("held_out"))
    with bar(n_tokens, "token", str(folder)) as shown:
        fields = rounding.check(
            opened.sae,
            opened.cache,
            opened.model,
            n_tokens=n_tokens,
            seed=seed,
            progress=shown.to,
        )
    for name, each in fields["dtypes"].items():
        each["bytes_per_position"] = stored_bytes(opened.sae.d_model, name)
    result = document("capture-check", seed, run=str(folder), **fields)
    show(result, as_json, table(result))
    return 0


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    spliced = ""
    if "ce_spliced" in result:
        spliced = f"; cross-entropy {result['ce_clean']:.4f}, spliced {result['ce_spliced']:.4f}"
    lines = [
        f"{result['run']} at {result['hook']}: FVU {cell(result['fvu'])} on float32{spliced}; "
        f"{result['tokens']:,} held-out tokens of {result['documents']} documents",
        f"{'dtype':10}{'bytes':>7}  {'FVU added, % of it':28}cross-entropy added, nats",
    ]
    lines += [_row(name, fields) for name, fields in result["dtypes"].items()]
    lines += [f"advised against: {why}" for why in against(result)]
    return "\n".join(lines)


def _row(name: str, fields: dict[str, Any]) -> str:
    percent = {key: None if x is None else 100 * x for key, x in fields["fvu_share"].items()}
    ce = cell(fields["ce_added"]) if "ce_added" in fields else "-"
    return f"{name:10}{fields['bytes_per_position']:>7,}  {cell(percent, '.3f'):28}{ce}"


def against(result: dict[str, Any]) -> list[str]:
    """Which dtypes are advised against, and why."""
    said = []
    for name, fields in result["dtypes"].items():
        if fields["overflows"]:
            said.append(f"{name}, which cannot hold numbers that large")
        elif name == "int8" and result["outliers"]:
            said.append(f"{name}, as {large(result['outliers'])}")
        elif not fields["advised"]:
            said.append(f"{name}, which may add over 1% of the FVU")
    return said


def large(outliers: list[dict[str, Any]]) -> str:
    """Dimensions that are far larger than the others, as the end of a sentence."""
    from saelab.activations.outliers import TIMES

    first = ", ".join(
        f"{each['dimension']} ({each['times_median']:.0f} x)" for each in outliers[:NAMED]
    )
    more = f" and {len(outliers) - NAMED} more" if len(outliers) > NAMED else ""
    return (
        f"the rms of dimensions {first}{more} is over {TIMES:.0f} x the median dimension's, and a "
        "step of int8 is a 127th of a token's largest number"
    )


def outliers_of(cache: "Cache") -> dict[str, list[dict]]:
    """By hook of an int8 cache, the dimensions that are far larger than the others."""
    from saelab.activations.outliers import outliers

    if cache.plan.dtype != "int8":
        return {}
    rms = {hook: cache.moments(hook).rms for hook in cache.hooks}
    return {hook: [each._asdict() for each in outliers(rms_D)] for hook, rms_D in rms.items()}
