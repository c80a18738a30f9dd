"""What Neuronpedia takes, written from a feature index and sent nowhere: `upload/batch-N.json`,
each the body of a request to its `/api/feature/upload-batch`, and `exports/MODEL/SOURCE/`, the
folder that its bulk import reads.

What `sae_dashboard` says is not in an index is empty here too. Shapes: F features.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from saelab.features.reader import FeatureIndex
from saelab.files import write_atomic
from saelab.formats.hooks import for_transformer_lens
from saelab.formats.sae_dashboard import (
    TOP,
    Source,
    batches,
    features,
    rounded,
    write_json,
)
from saelab.sae import SAE

CREATOR = "clkht01d40000jv08hvalcvly"  # the user that its own converter names where none is said
LEFT_OUT = ("n_prompts_total", "n_tokens_in_prompt", "dataset", "activations", "feature_index")


class _Names(NamedTuple):
    """What every row says."""

    source: Source
    creator: str
    made: str
    """when, as ISO 8601 without a zone: UTC"""

    @property
    def row(self) -> dict[str, Any]:
        """Of rows about one source."""
        created = {"creatorId": self.creator, "createdAt": self.made}
        return {"modelId": self.source.model, "layer": self.source.id, **created}


def write(
    sae: SAE,
    index: FeatureIndex,
    out: Path | str,
    source: Source,
    creator: str = CREATOR,
    progress: Callable[[int], object] | None = None,
    chosen: Sequence[int] | None = None,
) -> None:
    """Write both; features that never fired have no entry. creator: the id of a user of the
    Neuronpedia that imports the folder; chosen: the features to write (default: all). Raises
    UsageError for an SAE with signed values and an index of another SAE.

    >>> with FeatureIndex("runs/a/features.db") as index:
    ...     neuronpedia.write(sae, index, "for-neuronpedia", Source.of(sae, set="mine"))
    """
    names = _Names(source, creator, datetime.now(UTC).replace(tzinfo=None).isoformat())
    upload, export = Path(out) / "upload", Path(out) / "exports" / source.model / source.id
    hook = for_transformer_lens(sae.origin.hook)
    rows = features(sae, index, progress, "neuronpedia", chosen)
    for number, batch in enumerate(batches(rows)):
        uploaded = [_uploaded(feature) for feature in batch]
        body = {"modelId": source.model, "source": source.id, "features": uploaded}
        write_json(body, upload / f"batch-{number}.json")
        lines = (_feature_row(names, index, hook, feature) for feature in batch)
        _write_lines(lines, export / "features" / f"batch-{number}.jsonl.gz")
        activations = (row for feature in batch for row in _activation_rows(names, feature))
        _write_lines(activations, export / "activations" / f"batch-{number}.jsonl.gz")
    for name, row in _about(names, sae, index).items():
        text = json.dumps(row) + "\n"
        write_atomic(export / f"{name}.jsonl", lambda at, text=text: at.write_text(text))


# --- the request's body --------------------------------------------------------------------------


def _uploaded(feature: dict[str, Any]) -> dict[str, Any]:
    """A feature of a request. The strongest examples, which are no quantile, have no bounds."""
    return {
        "index": feature["feature_index"],
        "density": feature["frac_nonzero"],
        "activations": [
            {
                "tokens": activation["tokens"],
                "values": activation["values"],
                **_quantile(activation),
            }
            for activation in feature["activations"]
        ],
        "explanations": [],
        "topLogits": _logits(feature, "pos"),
        "bottomLogits": _logits(feature, "neg"),
    }


def _quantile(activation: dict[str, Any]) -> dict[str, float | None]:
    names = {"quantileMax": "bin_max", "quantileMin": "bin_min", "quantileFraction": "bin_contains"}
    is_top = activation["bin_contains"] == TOP
    return {name: None if is_top else activation[other] for name, other in names.items()}


def _logits(feature: dict[str, Any], side: str) -> list[dict[str, Any]]:
    pairs = zip(feature[f"{side}_str"], feature[f"{side}_values"], strict=True)
    return [{"token": token, "value": value} for token, value in pairs]


# --- the folder of a bulk import -----------------------------------------------------------------


def _feature_row(
    names: _Names, index: FeatureIndex, hook: str, feature: dict[str, Any]
) -> dict[str, Any]:
    number = feature["feature_index"]
    peaks = [max(activation["values"]) for activation in feature["activations"]]
    neighbours = index.feature(number).neighbours
    dashboard = {name: value for name, value in feature.items() if name not in LEFT_OUT}
    return {
        **names.row,
        "index": number,
        "sourceSetName": names.source.set,
        "maxActApprox": max(peaks, default=0.0),
        "hasVector": False,
        "vectorLabel": None,
        "vectorDefaultSteerStrength": None,
        "hookName": hook,
        "topkCosSimIndices": [neighbour.feature for neighbour in neighbours],
        "topkCosSimValues": rounded([neighbour.cosine for neighbour in neighbours]),
        **dashboard,
    }


def _activation_rows(names: _Names, feature: dict[str, Any]) -> Iterator[dict[str, Any]]:
    index = feature["feature_index"]
    for number, activation in enumerate(feature["activations"]):
        values = activation["values"]
        largest = max(values)
        place = f"{names.source.model}/{names.source.id}/{index}/{number}"
        yield {
            "id": "c" + hashlib.sha256(place.encode()).hexdigest()[:24],
            **names.row,
            "index": index,
            "tokens": activation["tokens"],
            "values": values,
            "maxValue": largest,
            "maxValueTokenIndex": values.index(largest),
            "minValue": min(values),
            "binMin": activation["bin_min"],
            "binMax": activation["bin_max"],
            "binContains": activation["bin_contains"],
            "qualifyingTokenIndex": activation["qualifying_token_index"],
            "dfaValues": [],
            "dfaTargetIndex": None,
            "dfaMaxValue": None,
            "lossValues": [],
            "logitContributions": None,
            "dataIndex": None,
            "dataSource": None,
        }


def _about(names: _Names, sae: SAE, index: FeatureIndex) -> dict[str, dict[str, Any]]:
    """The one row of each of the tables above features, by the name of its file."""
    source, created = names.source, {"creatorId": names.creator, "createdAt": names.made}
    # Not the SAE's own words, whose model may be a folder of somebody's machine.
    described = f"{sae.n_features:,} features at {for_transformer_lens(sae.origin.hook)}"
    release = {
        "name": source.set,
        "description": described,
        "descriptionShort": source.set,
        "creatorName": "",
        "creatorNameShort": "",
        "visibility": "PUBLIC",
        "urls": [],
        **created,
    }
    model = {
        "id": source.model,
        "instruct": False,
        "displayName": source.model,
        "displayNameShort": source.model,
        "visibility": "PUBLIC",
        "updatedAt": names.made,
        **created,
    }
    set_ = {
        "modelId": source.model,
        "name": source.set,
        "description": described,
        "creatorName": "",
        "releaseName": source.set,
        "hasDashboards": True,
        "visibility": "PUBLIC",
        **created,
    }
    one = {
        "id": source.id,
        "modelId": source.model,
        "setName": source.set,
        "hasDashboards": True,
        "visibility": "PUBLIC",
        "num_prompts": index.summary["n_contexts"],
        "num_tokens_in_prompt": index.summary["context"],
        "dataset": "",
        "hfRepoId": None,
        "hfFolderId": None,
        **created,
    }
    return {"release": release, "model": model, "sourceset": set_, "source": one}


def _write_lines(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """A JSON document a line, compressed, atomically."""
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    packed = gzip.compress(lines.encode(), compresslevel=5, mtime=0)
    write_atomic(path, lambda temporary: temporary.write_bytes(packed))
