"""Measures the bundled vision model as stored and writes its card. `python -m
training.bundled.vision_card [--model DIR] [--scenes N]`.

A linear probe on all dimensions of a patch's embedding tells its concepts, trained on scenes that
the model never saw and scored on others; beside it the same probe on the untrained model and on raw
pixels. Shapes: P patches, D width, C concepts.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saelab import models
from saelab.evaluation.dense_probe import average_precisions, fitted
from saelab.files import write_atomic, write_json
from saelab.models.encoders import Encoder, encode, held
from saelab.pictures import prepared_for
from saelab.scenes import CONCEPTS, KINDS, PATCH, SIZE, of_pixels, scene

from .vision_model import encoder, new_model

SEEDS = {"train": 1, "held_out": 2}  # of the probe's scenes; the model's own have seed 0
LEAST = 20  # held-out patches that a concept is scored on
TEXT = """# The bundled vision model

A small vision transformer of scenes drawn by code (`saelab.scenes`), trained by this project
without labels so that everything works without a download: ViT architecture, {layers} layers,
d_model 128, 4 heads, images of 96 x 96 pixels in 144 patches of 8 x 8, a [CLS] position before
them. Stored as float16, loaded as float32, {megabytes:.1f} MB. MIT licence, like the project.

**Training.** `python -m training.bundled.vision_model train`, `export`: half of the patches hidden,
descriptors of all told from the others, on 16,000 scenes and their mirror images; AdamW, half a
cosine. The log is `train.jsonl`: {steps:,} steps in {minutes:.0f} minutes of one core.

**Measured on the stored file** by `python -m training.bundled.vision_card`: mean average precision
of a linear probe on every dimension of a patch's last hidden state, over the {concepts} concepts
that at least {least} held-out patches show; {n_train:,} scenes to train the probe, {n_held_out:,}
to score it, none of them the model's own; 95% interval over scenes.

| probe on | all | {kinds} |
|---|---|{dashes}
{rows}

Chance is the share of patches that show the concept, {chance:.3f} on average.

**Limits.** It knows nothing but these scenes. It is for interpretability work.
"""


class Patches(NamedTuple):
    """Patches of scenes with their concepts."""

    inputs: dict[str, Tensor]
    """[P, D] by what the probe reads"""
    labels: NDArray[np.bool_]
    """[P, C]"""
    owners: NDArray[np.int64]
    """[P]: number of the scene"""


@torch.no_grad()
def patches(encoders: dict[str, Encoder], normal: Any, seed: int, n: int) -> Patches:
    """Of n scenes: raw pixels, and the last hidden states of models."""
    inputs: dict[str, list[Tensor]] = {name: [] for name in ("raw pixels", *encoders)}
    labels = []
    for first in range(0, n, 32):
        drawn = [scene(number, seed) for number in range(first, min(first + 32, n))]
        labels += [of_pixels(one.labels, PATCH) for one in drawn]
        pixels = normal(np.stack([one.image for one in drawn]))
        cut = torch.nn.functional.unfold(pixels, PATCH, stride=PATCH)
        inputs["raw pixels"].append(cut.transpose(1, 2).flatten(0, 1))
        for name, model in encoders.items():
            output = encode(model, {"pixel_values": pixels}).output
            inputs[name].append(output[:, 1:].flatten(0, 1))
    owners_P = np.repeat(np.arange(n), (SIZE // PATCH) ** 2)
    whole = {name: torch.cat(parts) for name, parts in inputs.items()}
    return Patches(whole, np.concatenate(labels), owners_P)


def scores(train: Patches, test: Patches, name: str, resamples: int) -> dict[str, Any]:
    """Mean average precision with its interval over scenes, by kind of concept, and of each."""
    scored_PC = fitted(train.inputs[name], train.labels)(test.inputs[name])
    enough_C = np.flatnonzero(test.labels.sum(0) >= LEAST)
    each_C = average_precisions(scored_PC, test.labels)
    kinds = np.array([name.split(":")[0] for name in CONCEPTS])
    by_kind = {kind: float(each_C[enough_C][kinds[enough_C] == kind].mean()) for kind in KINDS}
    drawn = []
    rng = np.random.default_rng(0)
    n_scenes = test.owners.max() + 1
    for _ in range(resamples):
        counts = np.bincount(rng.integers(0, n_scenes, n_scenes), minlength=n_scenes)
        weighted_C = average_precisions(scored_PC, test.labels, counts[test.owners])
        drawn.append(np.nanmean(weighted_C[enough_C]))
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    value = float(each_C[enough_C].mean())
    chance = float(test.labels.mean(0)[enough_C].mean())
    concepts = {CONCEPTS[c]: round(float(each_C[c]), 4) for c in enough_C}
    whole = {"value": value, "low": low, "high": high, "null": chance}
    return {"map": whole, "by_kind": by_kind, "concepts": concepts}


def measured(name: str, n_train: int, n_held_out: int, resamples: int) -> dict[str, Any]:
    """The probe's scores on the model, on the untrained one and on raw pixels."""
    model = models.load(name)
    plain = encoder(new_model()).requires_grad_(False)
    named = {"this model": model, "untrained model": held(plain)}
    normal = prepared_for(model).normal
    sizes = {"train": n_train, "held_out": n_held_out}
    splits = {split: patches(named, normal, seed, sizes[split]) for split, seed in SEEDS.items()}
    train, test = splits["train"], splits["held_out"]
    probes = {one: scores(train, test, one, resamples) for one in train.inputs}
    return {"scenes": sizes, "layers": model.cfg.n_layers, "probes": probes}


def card(result: dict[str, Any], log: list[dict], n_bytes: int) -> str:
    """The card's text."""
    first = next(iter(result["probes"].values()))
    rows = [_row(name, probe) for name, probe in result["probes"].items()]
    return TEXT.format(
        megabytes=n_bytes / 1e6,
        layers=result["layers"],
        steps=log[-1]["step"],
        minutes=log[-1]["cpu_seconds"] / 60,
        concepts=len(first["concepts"]),
        least=LEAST,
        n_train=result["scenes"]["train"],
        n_held_out=result["scenes"]["held_out"],
        kinds=" | ".join(KINDS),
        dashes="---|" * len(KINDS),
        rows="\n".join(rows),
        chance=first["map"]["null"],
    )


def _row(name: str, probe: dict[str, Any]) -> str:
    whole = probe["map"]
    kinds = " | ".join(f"{probe['by_kind'][kind]:.3f}" for kind in KINDS)
    return (
        f"| {name} | {whole['value']:.3f} ({whole['low']:.3f} to {whole['high']:.3f}) | {kinds} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="data/bundled-vision", help="folder of the model")
    parser.add_argument("--scenes", type=int, default=600, help="to train the probe on")
    parser.add_argument("--held-out", type=int, default=300, help="to score it on")
    parser.add_argument("--resamples", type=int, default=200, help="of scenes, for the interval")
    args = parser.parse_args()
    folder = Path(args.model)
    result = measured(args.model, args.scenes, args.held_out, args.resamples)
    log = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    text = card(result, log, (folder / "model.safetensors").stat().st_size)
    write_json(folder / "card.json", result)
    write_atomic(folder / "README.md", lambda temporary: temporary.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
