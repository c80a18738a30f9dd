"""SAEBench's evaluations beside the report's own, corrected: each number with interval and null, of
the SAE and of its controls (`saelab eval --suite`).

Left out is what fails by the reliability audit (Chanin 2026, arXiv 2605.18229): see `NOT_MEASURED`.
Shapes: F features, N tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from saelab.activations import Cache
from saelab.evaluation import absorption, core, ground_truth, meta, probing, stated
from saelab.evaluation.firing import silent
from saelab.evaluation.labelled import Labelled
from saelab.evaluation.references import Reconstruct
from saelab.evaluation.stated import Stated, drawn
from saelab.sae import SAE
from saelab.statistics import Estimate, over_seeds, weights

TOKENS = 50_000  # of each split, at most
TRUTH = {"mcc": "higher", "uniqueness": "higher", "precision": "higher", "recall": "higher"}
TRUTH |= {"f1": "higher"}
NOT_MEASURED = {
    "scr": "spurious correlation removal turns negative against known truth where many latents are "
    "removed (arXiv 2605.18229): it does not rank SAEs",
    "tpp": "targeted probe perturbation gets worse the longer an SAE is trained (arXiv "
    "2605.18229): it does not rank SAEs",
    "unlearning": "needs an instruction-tuned model and a gated corpus",
    "autointerp": "`saelab explain` has it, with a judge or without",
}

Told = Callable[[str], object]


def measure(
    saes: Mapping[str, SAE],
    cache: Cache,
    *,
    known: Mapping[str, Reconstruct] | None = None,
    splits: tuple[Labelled, Labelled] | None = None,
    parts: tuple[str, ...] = ("core", "meta-structure", "absorption", "ground truth"),
    seed: int = 0,
    told: Told | None = None,
) -> dict[str, Any]:
    """Fields `rows` (of `stated.table`) and `left_out` (labels whose absorption cannot be told,
    with the reason). saes: by name, `sae` the one that is asked for and `random_init`, whose values
    are nulls; known: controls that are reconstructions alone. splits: labelled activations, to
    choose latents on and to score; ground truth only of a synthetic world's cache.

    >>> measure({"sae": sae, "random_init": untrained}, cache)["rows"][0]["value"]
    """
    by_name: dict[str, list[Stated]] = {name: [] for name in (*saes, *(known or {}))}
    hook = saes["sae"].origin.hook
    reasons: dict[str, str] = {}
    for name, sae in saes.items():
        if told:
            told(name)
        mine = by_name[name]
        live_F = ~silent(sae, _pieces(cache, hook)).cpu()
        if "core" in parts and not sae.transcoder:
            mine += core.of_tokens(sae, cache, hook, TOKENS, seed)
        if "core" in parts:
            mine += core.of_rows(sae, live_F, seed)
        if "meta-structure" in parts and name != "permuted_decoder":  # which has the same rows
            options = {"n_steps": meta.STEPS, "seed": seed, "null": name == "sae"}
            mine += meta.structure(sae.W_dec, live_F, **options)
        if "absorption" in parts and splits is not None:
            mine += absorbed(sae, *splits, seed, reasons)
        if "ground truth" in parts and cache.plan.model.get("spec"):
            mine += _truth(sae, cache, seed)
    for name, reconstruct in (known or {}).items() if "core" in parts else ():
        by_name[name] += core.of_tokens(reconstruct, cache, hook, TOKENS, seed)
    return {"rows": stated.table(by_name, null="random_init"), "left_out": reasons}


def _pieces(cache: Cache, hook: str) -> Iterator[Tensor]:
    for chunk in cache.counted(hook, "train", TOKENS):
        yield from chunk.x.split(core.SIZE)


def absorbed(
    sae: SAE, train: Labelled, test: Labelled, seed: int, reasons: dict[str, str] | None = None
) -> list[Stated]:
    """Of every label `rate` and `fraction` of absorption and `main F1`, how well its latents tell
    it, intervals over documents; over all labels `split latents`, how many each has, interval over
    labels. A low rate beside a low F1 is no merit. reasons: gets those of labels left out."""
    made, splits, reasons = [], [], {} if reasons is None else reasons
    for label in train.labels:
        least = min(int((part.labels[label] == s).sum()) for part in (train, test) for s in (0, 1))
        if least < probing.LEAST:
            reasons[label] = f"{least} examples of a kind, {probing.LEAST} are needed"
            continue
        found = absorption.absorption(sae, train, test, label, seed)
        if found.rate.value is None:
            reasons[label] = f"a linear probe finds it with F1 {found.probe_f1:.2f}, too seldom"
            continue
        splits.append(len(found.main))
        made += _of_label(found, label, seed)
    if splits:
        mean = over_seeds([float(n) for n in splits])
        made.append(Stated("absorption", "split latents", "lower", mean))
    return made


def _of_label(found: absorption.Absorption, label: str, seed: int) -> list[Stated]:
    sums = {
        "rate": (probing.by_document(found.absorbed, found.groups), "lower"),
        "fraction": (probing.by_document(found.fractions, found.groups), "lower"),
        "main F1": (found.main_sums, "higher"),
    }
    made = []
    for name, (sums_GM, better) in sums.items():
        weights_RG = weights(len(sums_GM), seed)
        estimate, draws_R = drawn(sums_GM, probing.share_of, weights_RG)
        made.append(Stated("absorption", name, better, estimate, draws_R, label))
    return made


def _truth(sae: SAE, cache: Cache, seed: int) -> list[Stated]:
    fields = ground_truth.measure(sae, cache, n_tokens=TOKENS, seed=seed)
    return [
        Stated("ground truth", name, better, Estimate.from_dict(fields[name]))
        for name, better in TRUTH.items()
    ]
