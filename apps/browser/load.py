"""What the pages show, read from run directories; Streamlit's caches are here, in
load_lists and load_runs."""

import json
import os
from pathlib import Path

import streamlit as st

from saelab.errors import FailedRun, UsageError
from saelab.explaining import store
from saelab.features import stable as stable_
from saelab.features.annotations import Annotation, Annotations, identity
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example, Feature
from saelab.features.stable import Stable
from saelab.files import read_rows
from saelab.folders import find
from saelab.runs import RunFolder, read

from . import PLACES

Stamp = tuple[str, int, int]


@st.cache_data(ttl=10, show_spinner=False)
def _runs(places: str) -> dict[str, Path]:
    return find(json.loads(places))


def runs() -> dict[str, Path]:
    """The runs by name; looked for again every ten seconds, so that a run that finishes appears."""
    return _runs(os.environ.get(PLACES, '["runs"]'))


@st.cache_data(ttl=10, show_spinner=False)
def _circuits(places: str) -> dict[str, Path]:
    return find(json.loads(places), RunFolder.is_circuit)


def circuits() -> dict[str, Path]:
    """The folders with a circuit.json by name; looked for again every ten seconds."""
    return _circuits(os.environ.get(PLACES, '["runs"]'))


@st.cache_data(ttl=10, show_spinner=False)
def _graphs(places: str) -> dict[str, Path]:
    return find(json.loads(places), RunFolder.is_graphs)


def graphs() -> dict[str, Path]:
    """The folders with a graphs.json by name; looked for again every ten seconds."""
    return _graphs(os.environ.get(PLACES, '["runs"]'))


def stamped(*paths: Path) -> Stamp:
    """Files' identity: one that is written anew is read anew."""
    known = [path.stat() for path in paths if path.is_file()]
    newest = max((status.st_mtime_ns for status in known), default=0)
    return str(paths[0]), newest, sum(status.st_size for status in known)


@st.cache_resource(max_entries=8, show_spinner=False)
def opened_at(stamp: Stamp) -> FeatureIndex:
    """An index as its file was at that time."""
    return FeatureIndex(stamp[0])


@st.cache_data(max_entries=64, show_spinner=False)
def _lines(stamp: Stamp) -> list[dict]:
    return read_rows(Path(stamp[0]))


def index(run: Path) -> FeatureIndex | None:
    """The run's feature index, or None before `saelab index`. Raises UsageError for a damaged one
    or another version's."""
    path = RunFolder(run).features
    return opened_at(stamped(path)) if path.is_file() else None


@st.cache_data(max_entries=64, show_spinner=False)
def _document(stamp: Stamp) -> dict:
    return read(Path(stamp[0]))


def document(path: Path) -> dict:
    """The fields of a JSON document, empty if there is no such file. Raises FailedRun for a damaged
    one."""
    return _document(stamped(path)) if path.is_file() else {}


def curves(run: Path) -> list[dict]:
    """The rows of metrics.jsonl; one that training has half written is left out."""
    path = RunFolder(run).metrics
    return _lines(stamped(path)) if path.is_file() else []


@st.cache_data(max_entries=512, show_spinner=False)
def _feature(stamp: Stamp, number: int) -> tuple[Feature, list[Example]]:
    opened = opened_at(stamp)
    return opened.feature(number), opened.examples(number)


def feature(opened: FeatureIndex, number: int) -> tuple[Feature, list[Example]]:
    """A feature and its examples. Raises UsageError for a number the SAE does not have."""
    return _feature(stamped(opened.path), number)


# --- what people and `saelab explain` say --------------------------------------------------------


def annotations(run: Path, opened: FeatureIndex) -> Annotations:
    """The annotations of the SAE that the index is of."""
    sae = identity(opened.summary)
    return Annotations(RunFolder(run).annotations, sae, opened.n_features)


@st.cache_data(max_entries=16, show_spinner=False)
def _annotated(stamp: Stamp, sae: str, n_features: int) -> dict[int, Annotation]:
    return Annotations(stamp[0], sae, n_features).all()


def annotated(run: Path, opened: FeatureIndex) -> dict[int, Annotation]:
    """Every feature of which something is said. Raises FailedRun for a damaged file."""
    here = annotations(run, opened)
    log = here.path.with_name(f"{here.path.name}-wal")
    return _annotated(stamped(here.path, log), here.sae, here.n_features)


@st.cache_data(max_entries=8, show_spinner=False)
def _explained(stamp: Stamp, run: str) -> dict[int, str]:
    folder = RunFolder(run)
    return {number: one.text for number, one in store.explanations(folder).items()}


def explained(run: Path) -> dict[int, str]:
    """The explanations by feature; empty where there are none, or they cannot be read."""
    try:
        return _explained(stamped(RunFolder(run).explanations), str(run))
    except (FailedRun, UsageError):
        return {}


@st.cache_data(max_entries=16, show_spinner=False)
def _stable(stamp: Stamp, sae: str | None, n_features: int) -> Stable | None:
    return stable_.read(Path(stamp[0]), sae, n_features)


def stable(run: Path, opened: FeatureIndex) -> Stable | None:
    """In how many other seeds each feature comes again; None where that was not measured."""
    folder = RunFolder(run)
    return _stable(stamped(folder.stability), folder.sae_digest(), opened.n_features)


# --- other runs ----------------------------------------------------------------------------------


def twins(here: str, opened: FeatureIndex) -> dict[str, str]:
    """The run here, by name, of each other SAE that the index was built with: what `saelab index
    --compare` called by its seed or its folder."""
    hook = opened.summary["hook"]
    by_name: dict[str, str] = {}
    for name, folder in runs().items():
        header = RunFolder(folder).header
        if name == here or not header.is_file() or not RunFolder(folder).features.is_file():
            continue
        try:
            origin = document(header).get("origin") or {}
        except FailedRun:  # which its own page tells
            continue
        if origin.get("hook") == hook:
            by_name.setdefault(folder.resolve().name, name)
            by_name.setdefault(f"seed {origin.get('seed')}", name)
    wanted = {other["name"] for other in opened.summary["others"]}
    return {name: run for name, run in by_name.items() if name in wanted}
