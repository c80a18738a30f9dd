"""How often two SAEs absorb what is known of texts, on the same tokens.

See `saelab.evaluation.absorption`. Shapes: M tokens that have a property and that the probe finds.
"""

from typing import Any

from saelab.evaluation import probing
from saelab.evaluation.absorption import Absorption, absorption
from saelab.evaluation.labelled import Labelled
from saelab.evaluation.labelled_texts import halves, in_first, too_few
from saelab.sae import SAE
from saelab.statistics import least, paired, verdict


def compared(first: SAE, second: SAE, known: Labelled, seed: int = 0) -> dict[str, Any]:
    """Absorption of every label in both, and the second's rate less the first's, paired by text.

    Latents and probe are chosen on one half of the texts, rates are of the other. A low rate of an
    SAE whose main latents tell the property badly (`main_f1`) is no merit. `left_out`: labels with
    too few texts, and those that the probe does not find in the activations, with the reason.

    >>> compared(first, second, at_last_token(model, hook, read(path)))["properties"][0]["value"]
    """
    train, test = halves(known, seed)
    rows, left_out = [], {}
    for label in known.labels:
        if reason := too_few(known.labels[label], in_first(known.groups, seed)):
            left_out[label] = reason
            continue
        one = absorption(first, train, test, label, seed)
        if one.rate.value is None:
            f1 = f"{one.probe_f1:.2f}"
            left_out[label] = f"a linear probe finds it with F1 {f1}, too seldom to be absorbed"
            continue
        other = absorption(second, train, test, label, seed)
        rows.append(_row(label, one, other, seed))
    return {"texts": len(known.groups), "properties": rows, "left_out": left_out}


def _row(label: str, first: Absorption, second: Absorption, seed: int) -> dict[str, Any]:
    sums = [probing.by_document(side.absorbed, side.groups) for side in (first, second)]
    change = paired(sums[1], sums[0], probing.share_of, len(sums[0]), seed)
    return {
        "label": label,
        "tokens": len(first.absorbed),
        "probe_f1": first.probe_f1,
        "first": _side(first),
        "second": _side(second),
        **change.as_dict(),
        "least": least(change),
        "verdict": verdict(change, "lower"),
    }


def _side(found: Absorption) -> dict[str, Any]:
    absorbers = sorted(found.absorbers.items(), key=lambda pair: -pair[1])
    return {
        "rate": found.rate.as_dict(),
        "main": found.main,
        "main_f1": found.main_f1,
        "absorbers": [{"feature": latent, "tokens": count} for latent, count in absorbers],
    }
