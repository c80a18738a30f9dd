"""SAEDashboard's folder for Neuronpedia, written from a feature index: `batch-N.json`, whose
features Neuronpedia's own converter takes over, `run_settings.json`, `skipped_indexes.json`.

Its correlated neurons and features, the distribution of logits, the share of heads and direct
feature attribution stand in no index and stay empty. Shapes: F features, D width.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex
from saelab.features.records import Bin, Example, Feature
from saelab.files import write_atomic
from saelab.formats.hooks import INSIDE
from saelab.formats.refusing import of_sign, refuse
from saelab.sae import SAE

PER_FILE = 128  # features, which is also the most that Neuronpedia takes at a time
N_INTERVALS = 5  # of equal width between 0 and a feature's maximum
N_BARS = 20  # of the histogram, likewise
N_NEURONS = 3  # dimensions of the decoder row that are named
TOP = -1  # band of the strongest examples in an index; there the mark of their group
DIGITS = 7  # significant ones of every number
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Source(NamedTuple):
    """What Neuronpedia calls an SAE.

    >>> Source.of(sae, model="gpt2-small", set="res-mine").id
    '6-res-mine'
    """

    model: str
    layer: int
    set: str

    @property
    def id(self) -> str:
        """Its name among the model's sources."""
        return f"{self.layer}-{self.set}"

    @staticmethod
    def of(sae: SAE, model: str = "", set: str = "") -> "Source":
        """The source of an SAE. model: Neuronpedia's name of the model (default: the last part of
        the record's); set: of the SAEs of all layers, without the layer's number. Raises UsageError
        for a hook that is in no layer, and for names that do not go into an address."""
        hook, origin = INSIDE.fullmatch(sae.origin.hook), sae.origin
        if hook is None:
            raise UsageError(f"{sae!r} reads no layer, and Neuronpedia's sources are of layers")
        model = model or (Path(origin.model.name).name if origin.model else "")
        for option, name in (("--model-id", model), ("--set", set)):
            if not NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r} is no name for Neuronpedia: {option} takes letters, digits, "
                    "hyphens, dots and underscores"
                )
        return Source(model, int(hook[1]), set)


def write(
    sae: SAE,
    index: FeatureIndex,
    out: Path | str,
    source: Source,
    progress: Callable[[int], object] | None = None,
    chosen: Sequence[int] | None = None,
) -> None:
    """Write the folder; features that never fired are named in `skipped_indexes.json` and have no
    entry. chosen: the features to write (default: all). Raises UsageError for an SAE with signed
    values and an index of another SAE.

    >>> with FeatureIndex("runs/a/features.db") as index:
    ...     sae_dashboard.write(sae, index, "for-neuronpedia", Source.of(sae, set="mine"))
    """
    out, names = Path(out), {"model_id": source.model, "layer": source.layer}
    for number, batch in enumerate(batches(features(sae, index, progress, chosen=chosen))):
        fields = {**names, "sae_set": source.set, "sae_id_suffix": None, "features": batch}
        write_json(fields, out / f"batch-{number}.json")
    density_F = index.densities()
    dead = [number for number in _chosen(index, chosen) if not density_F[number]]
    about = {"layer": str(source.layer), "sae_set": source.set, "log_sparsity": None}
    skipped = {**names, **about, "skipped_indexes": dead}
    write_json(skipped, out / "skipped_indexes.json")
    write_json(_settings(sae, index, source), out / "run_settings.json")


def features(
    sae: SAE,
    index: FeatureIndex,
    progress: Callable[[int], object] | None = None,
    form: str = "sae_dashboard",
    chosen: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Each feature that ever fired, as a batch holds it. progress: called with how many of the
    chosen are done. Raises as `write` does, naming `form`."""
    refuse(sae, form, _unheld(sae, index), own=True)
    density_F = index.densities()
    for n_done, number in enumerate(_chosen(index, chosen), 1):
        if density_F[number]:
            yield _feature(index, index.feature(number), sae.W_dec[number].detach().cpu())
        if progress is not None:
            progress(n_done)


def _unheld(sae: SAE, index: FeatureIndex) -> Iterator[str]:
    yield from of_sign(sae)
    if index.n_features != sae.n_features:
        yield f"{index.path} is of one with {index.n_features} features: index the run again"


def _chosen(index: FeatureIndex, chosen: Sequence[int] | None) -> Sequence[int]:
    return range(index.n_features) if chosen is None else chosen


def batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows in lists of PER_FILE."""
    while batch := list(islice(rows, PER_FILE)):
        yield batch


def write_json(fields: dict[str, Any], path: Path) -> None:
    """Write a document of theirs, atomically, without spaces: batches are large."""
    text = json.dumps(fields, separators=(",", ":"))
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _feature(index: FeatureIndex, feature: Feature, W_dec_D: Tensor) -> dict[str, Any]:
    top_D = W_dec_D.topk(min(N_NEURONS, len(W_dec_D)))
    shares = top_D.values.abs() / W_dec_D.abs().sum()
    bars = _bars(feature.histogram, feature.row.max)
    none: dict[str, list] = {name: [] for name in EMPTY}
    return {
        "feature_index": feature.row.feature,
        "neuron_alignment_indices": top_D.indices.tolist(),
        "neuron_alignment_values": rounded(top_D.values.tolist()),
        "neuron_alignment_l1": rounded(shares.tolist()),
        "neg_str": [logit.text for logit in feature.suppressed],
        "neg_values": rounded([logit.value for logit in feature.suppressed]),
        "pos_str": [logit.text for logit in feature.promoted],
        "pos_values": rounded([logit.value for logit in feature.promoted]),
        "frac_nonzero": feature.row.density,
        "freq_hist_data_bar_values": rounded([(bar.low + bar.high) / 2 for bar in bars]),
        "freq_hist_data_bar_heights": rounded([bar.fired for bar in bars]),
        "n_prompts_total": index.summary["n_contexts"],
        "n_tokens_in_prompt": index.summary["context"],
        "dataset": "",
        "activations": _activations(index.examples(feature.row.feature), feature),
        **none,
    }


EMPTY = (
    *(f"correlated_neurons_{name}" for name in ("indices", "l1", "pearson")),
    *(f"correlated_features_{name}" for name in ("indices", "l1", "pearson")),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
    *("decoder_weights_dist", "vector"),
)


def _activations(examples: Sequence[Example], feature: Feature) -> list[dict[str, Any]]:
    """The strongest examples, then those of each interval of activations, strongest first. An
    interval's share is that of all firings, by the histogram."""
    largest, values = feature.row.max, {}
    for example in examples:
        value = example.activations[example.position]
        interval = TOP if example.band == TOP else _interval(value / largest)
        values.setdefault(interval, []).append((value, example))
    groups = [_group(values.get(TOP, []), float(TOP), largest, float(TOP))]
    for interval in reversed(range(N_INTERVALS)):
        low, high = (largest * edge / N_INTERVALS for edge in (interval, interval + 1))
        share = _between(feature.histogram, low, high, largest) / feature.row.fired
        groups.append(_group(values.get(interval, []), low, high, share))
    return [activation for group in groups for activation in group]


def _interval(share: float) -> int:
    """The interval of a value by its share of the largest, which belongs to the last."""
    return min(int(share * N_INTERVALS), N_INTERVALS - 1)


def _group(
    members: list[tuple[float, Example]], low: float, high: float, share: float
) -> list[dict[str, Any]]:
    bounds = rounded([low, high, share])
    names = ("bin_min", "bin_max", "bin_contains")
    return [
        {
            **dict(zip(names, bounds, strict=True)),
            "tokens": example.texts,
            "values": rounded(example.activations),
            "qualifying_token_index": example.position,
        }
        for _, example in sorted(members, key=lambda member: -member[0])
    ]


def _bars(histogram: Sequence[Bin], largest: float) -> list[Bin]:
    """The firings in bars of equal width."""
    edges = [largest * number / N_BARS for number in range(N_BARS + 1)]
    return [
        Bin(low, high, _between(histogram, low, high, largest))  # type: ignore[arg-type]
        for low, high in pairwise(edges)
    ]


def _between(histogram: Sequence[Bin], low: float, high: float, largest: float) -> float:
    """How many firings lie between two values, those of each of the index's bins spread evenly
    over it; the last of these ends with the largest value."""
    total = 0.0
    for bin_ in histogram:
        end = min(bin_.high, largest)
        width = end - bin_.low
        inside = min(end, high) - max(bin_.low, low)
        if width > 0 and inside > 0:
            total += bin_.fired * inside / width
        elif width <= 0 and low < largest <= high:  # nothing but the largest value
            total += bin_.fired
    return total


def rounded(values: Sequence[float]) -> list[float]:
    """The same to DIGITS significant digits, which float32 holds."""
    return [float(f"{value:.{DIGITS}g}") if value else 0.0 for value in values]


def _settings(sae: SAE, index: FeatureIndex, source: Source) -> dict[str, Any]:
    return {
        "sae_set": source.set,
        "sae_path": "",
        "outputs_dir": "",
        "model_id": source.model,
        "layer": source.layer,
        "n_prompts_total": index.summary["n_contexts"],
        "n_tokens_in_prompt": index.summary["context"],
        "n_features_at_a_time": PER_FILE,
        "n_quantiles": N_INTERVALS,
        "use_transcoder": sae.transcoder,
        "use_skip_transcoder": sae.transcoder and sae.W_skip is not None,
    }
