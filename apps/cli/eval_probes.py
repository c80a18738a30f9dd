"""Probes of `saelab eval`: kinds of Python tokens and attributes of prompts (`--probe`), and one's
own labels (`--labels`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError

from .common import told
from .progress import stage

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.activations import Cache
    from saelab.opening import Opened

PROBE_TOKENS = {"train": 60_000, "held_out": 30_000}
PROBE_PROMPTS = 1000


def check_text(folders: list[Path], cache: Path | None) -> None:
    """Raise UsageError, before a model is loaded, for a cache without Python files."""
    from saelab import opening
    from saelab.evaluation import labelled

    for run in opening.open_all(folders, cache=cache, needs=("cache",)):
        labelled.check_python(run.cache)


def check_labels(path: Path) -> None:
    """Raise UsageError, before a model is loaded, for what holds no labelled texts."""
    from saelab.tasks import labelled_texts

    labelled_texts.tasks(path)


def python_kinds(saes: dict[str, "SAE"], cache_: "Cache", model: Any, seed: int) -> list[dict]:
    """Rows of sparse probes: kinds of Python tokens; for the bundled model, attributes of
    indirect-object prompts too."""
    from saelab import models
    from saelab.evaluation import labelled, probing

    hook = saes["sae"].origin.hook
    splits = [
        labelled.python_tokens(cache_, hook, model.tokenizer, split, n)
        for split, n in PROBE_TOKENS.items()
    ]
    rows = probing.table(saes, splits[0], splits[1], seed=seed)
    here, bundled = (models.identity(each, weights=False) for each in (model, "bundled"))
    if here.revision == bundled.revision:
        prompts = [
            labelled.indirect_objects(model, hook, PROBE_PROMPTS, held_out=held_out)
            for held_out in (False, True)
        ]
        rows += probing.table(saes, prompts[0], prompts[1], seed=seed)
    return rows


def own_labels(
    path: Path, opened: "Opened", saes: Mapping[str, "SAE"], seed: int
) -> dict[str, Any]:
    """The report's part on one's own labels."""
    from saelab.evaluation import own_labels as labels

    folder, _, cache_, model = opened
    if model is None:
        raise UsageError(f"--labels needs the model of {folder.path}: name it with --model")
    if not getattr(model, "reads_text", True):
        raise UsageError(f"the model of {folder.path} reads no text: leave --labels out")
    options = {"bos": cache_.plan.asked_bos, "seed": seed}
    return labels.measure(path, model, saes, told=lambda name: stage(f"probing {name}"), **options)


def text(labelled: Mapping[str, Any]) -> str:
    """Accuracy of probes of one's own labels, by task, level, label and dictionary; AUC, interval
    and null are those of the SAE's widest probe."""
    rows = labelled["rows"]
    places = list(dict.fromkeys((row["task"], row["level"], row["label"]) for row in rows))
    dictionaries = [(row["dictionary"], row["k"]) for row in rows]
    columns = [one for one in dict.fromkeys(dictionaries) if one[1] in (1, 5, None)]
    cells = {
        (row["task"], row["level"], row["label"], row["dictionary"], row["k"]): row for row in rows
    }
    heads = "".join(f"{_head(*column):>12}" for column in columns)
    lines = [f"\n{'accuracy of probes':34}{heads}  {'sae 5: 95%':16}{'null':>5}{'AUC':>6}"]
    for place in places:
        values = "".join(
            f"{told(cells[*place, *one]['accuracy']['value'], '.2f'):>12}" for one in columns
        )
        widest = cells[*place, "sae", 5]
        score = widest["accuracy"]
        interval = f"[{told(score['low'], '.2f')}, {told(score['high'], '.2f')}]"
        null, auc = told(score["null"], ".2f"), told(widest["auc"]["value"], ".2f")
        lines.append(f"{' '.join(place):34.34}{values}  {interval:16}{null:>5}{auc:>6}")
    lines += [f"left out: {name}: {reason}" for name, reason in labelled["left_out"].items()]
    lines += [f"{name}: of {n:,} texts the end is read" for name, n in labelled["cut"].items()]
    return "\n".join(lines)


def _head(name: str, k: int | None) -> str:
    short = name.removesuffix("_init").replace("_", " ")[:9]
    return short if k is None else f"{short} {k}"
