"""What `saelab eval` and `saelab index` do, from a notebook."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import saelab
from saelab.errors import UsageError
from saelab.files import write_json
from saelab.opening import Opened
from saelab.runs import RunFolder, read

from .shown import frame

if TYPE_CHECKING:
    import pandas

    from saelab.features.reader import FeatureIndex

SHOWN = ("value", "low", "high", "null")


def index(folder: RunFolder) -> "FeatureIndex":
    """See `Run.index`."""
    from saelab.features.reader import FeatureIndex

    if not folder.features.is_file():
        raise UsageError(
            f"{folder.path} has no feature index yet: run.build_index(), or "
            f"`saelab index {folder.path}`"
        )
    return FeatureIndex(folder.features)


def with_model(opened: Opened) -> Opened:
    """The same. Raises UsageError for a run without a model."""
    if opened.model is None:
        raise UsageError(f"{opened.folder.path} has no model: its activations were given")
    return opened


def evaluate(opened: Opened, n_tokens: int, seed: int, labels: Path | str | None) -> None:
    """Write the run's report.json."""
    from saelab.evaluation import controls, evaluate, own_labels

    folder, sae, cache, model = opened
    fields = {}
    if labels is not None:
        saes = {"sae": sae, "random_init": controls.untrained(sae, cache, seed)}
        bos, model = cache.plan.asked_bos, with_model(opened).model
        fields["labelled"] = own_labels.measure(Path(labels), model, saes, bos=bos, seed=seed)
    fields |= evaluate(sae, cache, model, n_tokens=n_tokens, seed=seed)
    head = {"schema": "saelab/report/1", "saelab_version": saelab.__version__, "seed": seed}
    result = {**head, "command": "run.evaluate()", **fields, "sae": folder.sae_digest()}
    write_json(folder.report, result)


def report(folder: RunFolder) -> "pandas.DataFrame":
    """See `Run.report`."""
    from saelab.evaluation import rows

    document = read(folder.report)
    if not document:
        how = f"run.evaluate(), or `saelab eval {folder.path}`"
        raise UsageError(f"{folder.path} is not evaluated yet: {how}")
    metrics = [{"metric": row.label, **document[row.key]} for row in rows.of(document)]
    return frame([{name: one.get(name) for name in ("metric", *SHOWN)} for one in metrics])


def probes(folder: RunFolder) -> "pandas.DataFrame":
    """See `Run.probes`."""
    part = read(folder.report).get("labelled")
    if not part:
        raise UsageError(
            f"{folder.path} has no probes of labels yet: run.evaluate(labels=FILE), or "
            f"`saelab eval {folder.path} --labels FILE`"
        )
    named = ("task", "level", "label", "dictionary", "k", "features")
    rows = []
    for row in part["rows"]:
        scores = {name: row[name]["value"] for name in ("accuracy", "auc", "loss")}
        rest = {name: row["accuracy"][name] for name in ("low", "high", "null")}
        rows.append({**{name: row[name] for name in named}, **scores, **rest})
    return frame(rows)


def build_index(opened: Opened, **options: Any) -> None:
    """See `Run.build_index`."""
    from saelab import indexing

    indexing.build_index(opened, **options)
