"""The suite of `saelab eval`: SAEBench's evaluations, corrected, beside the report (`--suite`,
`--absorption`), and the world that an SAE was trained on, drawn anew (`--world`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from saelab.errors import UsageError
from saelab.origin import SYNTHETIC
from saelab.runs import RunFolder

from .common import cell, told
from .eval_probes import PROBE_TOKENS
from .progress import stage

if TYPE_CHECKING:
    from saelab.opening import Opened

WORLD_TOKENS = 400_000  # of a world that is drawn anew; a twentieth of them is held out
PAIRS = {"train": 256, "held out": 500}  # of prompts whose attribute is moved


class Asked(Protocol):
    """What is asked of the options of `saelab eval`."""

    @property
    def suite(self) -> bool:
        """Everything."""
        ...

    @property
    def labels(self) -> Path | None:
        """File of texts and labels."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...


def is_synthetic(folders: list[Path]) -> bool:
    """Whether all these runs are of synthetic worlds, which have no model."""
    models = [RunFolder(folder).origin().model for folder in folders]
    return all(model is not None and model.name == SYNTHETIC for model in models)


def world_cache(path: Path, out: Path, seed: int) -> Path:
    """A cache of new samples of the world that a JSON file specifies. Raises UsageError for a file
    that is none."""
    from saelab.evaluation import synthetic_cache
    from saelab.evaluation.synthetic import Spec

    try:
        fields = json.loads(path.read_text())
        values: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()
        }
        spec = Spec(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no world: {error}; give a JSON object of fields of "
            "saelab.evaluation.synthetic.Spec"
        ) from None
    stage(f"samples of the world {path}")
    return synthetic_cache.write(spec, out, WORLD_TOKENS, seed=seed + 1)


def suite(
    opened: "Opened", saes: Mapping[str, Any], known: Mapping[str, Any], args: Asked
) -> dict[str, Any]:
    """The report's part. saes, known: the SAE, `random_init` and controls by name."""
    from saelab.evaluation import stated
    from saelab.evaluation import suite as suites

    splits, reason = _splits(opened, args)
    parts = ("absorption",) if not args.suite else None
    options = {"parts": parts} if parts else {}
    stage(f"suite of {opened.folder.path}")
    made = suites.measure(
        saes, opened.cache, known=known, splits=splits, seed=args.seed, told=stage, **options
    )
    missing = dict(suites.NOT_MEASURED) if args.suite else {}
    if splits is None:
        missing["absorption"] = reason
    if args.suite and not opened.cache.plan.model.get("spec"):
        missing["ground truth"] = "the true features of a model's activations are not known"
    if args.suite:
        moved, reason = interchanges(opened, saes, args.seed)
        made["rows"] += stated.table(moved, null="") if moved else []
        missing |= {"interchange": reason} if reason else {}
    return {**made, "not_measured": missing}


def _splits(opened: "Opened", args: Asked) -> tuple[Any, str]:
    """Labelled activations to choose latents on and to score: one's own texts, or kinds of Python
    tokens; or why there are none."""
    from saelab.evaluation import labelled, labelled_texts
    from saelab.tasks import labelled_texts as texts

    _, sae, cache, model = opened
    if model is None:
        return None, "there is no model"
    if args.labels and not args.labels.is_dir():
        bos = cache.plan.asked_bos
        known = labelled_texts.at_last_token(model, sae.origin.hook, texts.read(args.labels), bos)
        return labelled_texts.halves(labelled_texts.with_parents(known), args.seed), ""
    try:
        labelled.check_python(cache)
    except UsageError as error:
        return None, f"{error}; or give --labels FILE"
    hook, tokenizer = sae.origin.hook, model.tokenizer
    kinds = [
        labelled.python_tokens(cache, hook, tokenizer, split, n)
        for split, n in PROBE_TOKENS.items()
    ]
    return (kinds[0], kinds[1]), ""


def interchanges(
    opened: "Opened", saes: Mapping[str, Any], seed: int
) -> tuple[dict[str, list], str]:
    """Attributes moved between prompts of the compiled program, by each SAE, neurons and a learned
    rotation; or why not."""
    from saelab.analysis.circuits.planted import attributes
    from saelab.evaluation import interchange
    from saelab.models import running

    model, hook = opened.model, opened.sae.origin.hook
    if model is None or not attributes.is_planted(model) or hook != attributes.HOOK:
        return {}, (
            "needs prompts whose attributes are known at one position: of an SAE at "
            f"{attributes.HOOK} of the model of saelab.analysis.circuits.planted.attributes"
        )
    by_name: dict[str, list] = {name: [] for name in (*saes, "neurons", "rotation")}
    for name in attributes.VALUES:
        train, test = (
            attributes.pairs(name, n, seed, held_out=split == "held out")
            for split, n in PAIRS.items()
        )
        x_XD = running.read(model, train.base, [hook])[hook][:, attributes.POSITION].float()
        bases = {each: interchange.of_sae(sae, x_XD) for each, sae in saes.items()}
        width = x_XD.shape[1]
        bases |= {"neurons": interchange.neurons(width)}
        bases |= {"rotation": interchange.rotation(width, seed)}
        for each, basis in bases.items():
            for kept, which in ((True, name), (False, f"{name}, error lost")):
                mask_L = interchange.learned(model, hook, basis, train, kept=kept, seed=seed)
                found = interchange.scored(model, hook, basis, test, mask_L, kept=kept)
                by_name[each] += interchange.stated(found, which, seed)
    return by_name, ""


def text(part: Mapping[str, Any]) -> str:
    """The suite for people: the SAE's numbers beside its controls', and which of these they do not
    tell it from."""
    from saelab.evaluation import stated

    alike = stated.not_separated(part["rows"])
    others = dict.fromkeys(row["dictionary"] for row in part["rows"])
    others.pop("sae", None)
    by_key: dict[stated.Key, dict[str, Any]] = {}
    for row in part["rows"]:
        key = (row["evaluation"], row["metric"], row["label"])
        by_key.setdefault(key, {})[row["dictionary"]] = row
    heads = "".join(f"{name.replace('_', ' ')[:13]:>15}" for name in others)
    lines = [f"\n{'suite':46}{'value [95% interval]':28}{'null':>9}{heads}"]
    for key, known in by_key.items():
        if "sae" not in known:
            continue
        evaluation, metric, label = key
        name = " ".join(filter(None, (evaluation, label, metric)))
        values = (told(known[each]["value"]) if each in known else "" for each in others)
        beside = "".join(f"{value:>15}" for value in values)
        mark = f"  ! {', '.join(alike[key])}" if key in alike else ""
        null = told(known["sae"]["null"])
        lines.append(f"{name:46}{cell(known['sae']):28}{null:>9}{beside}{mark}".rstrip())
    if alike:
        lines.append("!: not better than these controls")
    lines += [f"left out: {label}: {reason}" for label, reason in part["left_out"].items()]
    lines += [f"not measured: {name}: {reason}" for name, reason in part["not_measured"].items()]
    return "\n".join(lines)
