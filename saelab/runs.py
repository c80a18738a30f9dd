"""A run's folder: what it holds, by the only names that say where. Importing this imports nothing
heavy."""

import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from saelab.files import read_json, read_object
from saelab.origin import Origin


class RunFolder:
    """The files of a run by name, whether they exist or not.

    RunFolder("runs/demo").report.is_file()
    RunFolder("runs/demo").documents()["report"]
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        inner = path.name == "sae" and (path / "sae.json").is_file()
        self.path = path.parent if inner else path
        self.config = self.path / "config.yaml"
        self.training = self.path / "training.json"
        self.metrics = self.path / "metrics.jsonl"
        self.sae = self.path / "sae"
        self.header = self.sae / "sae.json"
        self.checkpoints = self.path / "checkpoints"
        self.cache = self.path / "cache"
        self.windows = self.path / "windows.jsonl"
        self.features = self.path / "features.db"
        self.annotations = self.path / "annotations.db"
        self.explanations = self.path / "explanations.db"
        self.report = self.path / "report.json"
        self.stability = self.path / "stability.json"
        self.frozen_decoder = self.path / "controls" / "frozen-decoder"
        self.dark_matter = self.path / "dark-matter.json"
        self.dark_matter_map = self.path / "dark-matter.safetensors"
        self.heads = self.path / "heads.json"
        self.circuit = self.path / "circuit.json"
        self.graphs = self.path / "graphs.json"

    def __repr__(self) -> str:
        header = read(self.header)
        if not header:
            what = "an SAE of another form" if self.has_sae() else "no SAE yet"
            return f"RunFolder({str(self.path)!r}: {what})"
        sizes = f"{header['d_model']} -> {header['n_features']} -> {header['d_out']}"
        origin = self.origin()
        form = f"{origin.form} {origin}, {origin.tokens or 0:,} training tokens"
        return f"RunFolder({str(self.path)!r}: {sizes}, {form})"

    def supervised(self, task: str) -> Path:
        """The comparison with supervised dictionaries on a task."""
        return self.path / f"supervise-{task}.json"

    def compared(self, other: Path | str) -> Path:
        """The comparison with another run, which it holds as the first of the two; by where that
        lies, so that runs of one name in two folders do not overwrite each other's.

        RunFolder("runs/a").compared("runs/b").name  # 'compare-b.json'
        """
        way = Path(os.path.relpath(RunFolder(other).path.resolve(), self.path.resolve().parent))
        return self.path / f"compare-{'-'.join(part for part in way.parts if part != '..')}.json"

    def origin(self) -> Origin:
        """Where its SAE comes from, told without reading weights; of an SAE of another form
        nothing is known."""
        header = read(self.header)
        return Origin.from_dict(header.get("origin") or header.get("about") or {})

    def how_to_capture(self) -> str:
        """The command that makes the cache which its SAE lacks, for people."""
        if not self.header.is_file():
            return f"saelab import {quote(str(self.path))} --out RUN && saelab capture --for RUN"
        origin = self.origin()
        unknown = {" --model M": origin.model is None, " --hook H": not origin.hook}
        more = "".join(option for option, is_so in unknown.items() if is_so)
        return f"saelab capture --for {quote(str(self.path))}{more}"

    def layer(self, i: int) -> "RunFolder":
        """Of a cross-layer transcoder: the folder of the features of layer i, with their index."""
        return RunFolder(self.path / f"layer-{i}")

    def layers(self) -> "list[RunFolder]":
        """Those of its layers whose features are indexed."""
        every = [self.layer(i) for i in range(len(list(self.path.glob("layer-*"))))]
        return [one for one in every if one.features.is_file()]

    def graph(self, slug: str) -> Path:
        """The attribution graph of one prompt."""
        return self.path / f"{slug}.graph.json"

    def sae_digest(self) -> str | None:
        """SHA-256 of its SAE's weights, by which results say of which SAE they are; None where
        there is none, or it is not recorded."""
        return read(self.header).get("weights", {}).get("sha256")

    def is_run(self) -> bool:
        """Whether it holds a trained SAE, an index, or the record of a training."""
        recorded = self.config.is_file() and self.metrics.is_file()
        return self.features.is_file() or recorded or self.has_sae()

    def has_sae(self) -> bool:
        """Whether `sae/` holds an SAE of any known form, told without reading weights."""
        if self.header.is_file() or not self.sae.is_dir():
            return self.header.is_file()
        from saelab import formats

        return formats.known(self.sae) is not None

    def is_unfinished(self) -> bool:
        """Whether it holds the record of a training, and no SAE yet."""
        return self.config.is_file() and not self.has_sae()

    def is_circuit(self) -> bool:
        """Whether it holds what `saelab circuits` writes."""
        return self.circuit.is_file()

    def is_graphs(self) -> bool:
        """Whether it holds what `saelab graph` writes."""
        return self.graphs.is_file()

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """What verbs have written here by kind: `report`, `dark-matter`, `supervise`, `compare`,
        `heads`, `circuits`, `feature-circuit`."""
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self.path.glob("*.json")):
            document = read_json(path)
            if not isinstance(document, dict):
                continue  # somebody else's
            by_kind.setdefault(kind_of(document), []).append(document)
        return by_kind


def read(path: Path) -> dict[str, Any]:
    """A JSON document, empty if there is no such file. Raises FailedRun naming a damaged one."""
    return read_object(path) if path.is_file() else {}


def kind_of(document: Mapping[str, Any]) -> str:
    """What a document is, by its field `schema`: `saelab/KIND/VERSION`."""
    return str(document.get("schema", "//")).split("/")[1]
