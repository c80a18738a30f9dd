"""Measure an SAE on held-out documents: reconstruction, sparsity, and the model's loss with the SAE spliced in."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from apps.cli.common import Common, Count, document, show, upto

ROWS = {
    "fvu": "FVU",
    "l0": "L0",
    "dead_fraction": "dead features",
    "dense_fraction": "dense features",
    "cosine": "cosine",
    "ce_recovered": "CE recovered",
    "ce_recovered_mean": "CE recovered (mean ablation)",
    "kl": "KL, nats",
}


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab eval`."""

    run: Positional[Path] = Path()
    """run folder"""
    cache: Path | None = None
    """activation cache (default: the one the run was trained on)"""
    tokens: Count = 200_000
    """held-out tokens to read, at most"""


def run(args: Args) -> int:
    """Evaluate, write report.json into the run, print a table."""
    from tqdm import tqdm

    from saelab import SAE, models
    from saelab.activations import Cache
    from saelab.evaluation import evaluate
    from saelab.files import write_json

    sae = SAE.load(args.run)
    cache = Cache(args.cache or sae.about["cache"])
    cache.verify()
    cache.check_model(sae.about["model"])
    model = models.load(sae.about["model"]["name"])
    with tqdm(total=args.tokens, unit="token", file=sys.stderr, disable=None) as bar:
        fields = evaluate(sae, cache, model, n_tokens=args.tokens, seed=args.seed, progress=upto(bar))
    result = document("report", args.seed, **fields)
    write_json(args.run / "report.json", result)
    show(result, args.json, table(result))
    return 0


def table(result: dict) -> str:
    """The report for people."""
    lines = [f"{'':30}{'value':>9}  {'95% interval':^19}{'null':>9}"]
    for name, label in ROWS.items():
        field = result[name]
        null = "" if field["null"] is None else f"{field['null']:9.4f}"
        lines.append(f"{label:30}{field['value']:9.4f}  [{field['low']:8.4f}, {field['high']:8.4f}]{null:>9}")
    lines.append(f"\n{'known in advance':14}{'FVU':>12}{'CE recovered':>15}{'KL':>10}")
    for name, row in result["references"].items():
        values = [row[key]["value"] for key in ("fvu", "ce_recovered", "kl")]
        lines.append(f"{name:14}{values[0]:14.4f}{values[1]:15.4f}{values[2]:10.4f}")
    ce = " ".join(f"{name} {result[key]:.4f}" for name, key in (("clean", "ce_clean"), ("spliced", "ce_spliced"),
                                                                ("zeroed", "ce_ablated")))  # fmt: skip
    lines.append(f"\ncross-entropy in nats: {ce}; {result['tokens']:,} held-out tokens of {result['documents']} documents")
    return "\n".join(lines)
