"""What the pages show, read from run directories; Streamlit's caches are here and in load_runs."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from saelab.errors import FailedRun, UsageError
from saelab.explaining import store
from saelab.features.annotations import Annotation, Annotations, identity
from saelab.features.listing import Keep
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example, Feature, Hit, Passage
from saelab.files import read_rows
from saelab.folders import find
from saelab.runs import RunFolder, read

from . import PLACES, listing
from .listing import Listing

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
def _opened(stamp: Stamp) -> FeatureIndex:
    return FeatureIndex(stamp[0])


@st.cache_data(max_entries=64, show_spinner=False)
def _lines(stamp: Stamp) -> list[dict]:
    return read_rows(Path(stamp[0]))


def index(run: Path) -> FeatureIndex | None:
    """The run's feature index, or None before `saelab index`. Raises UsageError for a damaged one
    or another version's."""
    path = RunFolder(run).features
    return _opened(stamped(path)) if path.is_file() else None


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
    opened = _opened(stamp)
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


# --- lists ---------------------------------------------------------------------------------------


class Listed(NamedTuple):
    """A list of features."""

    order: NDArray
    """their numbers, in order"""
    hits: dict[int, Hit]
    """what a search found, by feature"""


def listed(run: Path, opened: FeatureIndex, wanted: Listing) -> Listed:
    """The features of a list. Raises UsageError for a column there is none of, and a box without a
    map."""
    said = annotated(run, opened) if _asks_people(wanted) else {}
    log = RunFolder(run).annotations
    stamps = stamped(log, log.with_name(f"{log.name}-wal")), stamped(RunFolder(run).explanations)
    return _listed(stamped(opened.path), stamps, wanted, said, str(run))


def _asks_people(wanted: Listing) -> bool:
    return bool(wanted.only or (wanted.q and "labels" in wanted.places))


@st.cache_data(max_entries=64, show_spinner=False)
def _listed(
    stamp: Stamp, stamps: tuple, wanted: Listing, _said: dict[int, Annotation], run: str
) -> Listed:
    opened = _opened(stamp)
    keep = Keep(
        density=(wanted.low, wanted.high),
        alive={"1": True, "0": False}.get(wanted.alive),
        sign=int(wanted.sign or 0),
        numbers=_only(opened, wanted.only, _said),
        box=wanted.box,
    )
    if not wanted.q.strip():
        return Listed(opened.order(wanted.sorted_by, wanted.descending, keep), {})
    texts = {"labels": _texts(_said), "explanations": explained(Path(run))}
    found = opened.search(wanted.asked, wanted.places, wanted.whole, texts, keep)
    hits = {hit.feature: hit for hit in found}
    if wanted.sorted_by == listing.MATCH:
        return Listed(np.array([*hits], np.int64), hits)
    among = keep._replace(numbers=[*hits])
    return Listed(opened.order(wanted.sorted_by, wanted.descending, among), hits)


def _texts(said: dict[int, Annotation]) -> dict[int, str]:
    """What is searched as a feature's label: the note behind it as well."""
    texts = {number: f"{one.label}\n{one.note}".strip() for number, one in said.items()}
    return {number: text for number, text in texts.items() if text}


def _only(opened: FeatureIndex, only: str, said: dict[int, Annotation]) -> list[int] | None:
    """Numbers of the features that are labelled, starred, on a list, or found in the first other
    SAE; None for all."""
    if only == "found":
        others = opened.summary["others"]
        pairs = opened.arrays.get("partner_cosine/0", np.zeros(0))
        bar = others[0]["threshold"] if others else 1.0
        return np.flatnonzero(np.abs(np.nan_to_num(pairs)) > bar).tolist()
    if only == "labelled":
        return [number for number, one in said.items() if one.label or one.note]
    if only == "starred":
        return [number for number, one in said.items() if one.starred]
    if only.startswith(listing.LIST):
        name = only.removeprefix(listing.LIST)
        return [number for number, one in said.items() if name in one.lists]
    return None


@st.cache_data(max_entries=64, show_spinner=False)
def _passages(stamp: Stamp, text: str) -> list[Passage]:
    return _opened(stamp).passages(text)


def passages(opened: FeatureIndex, text: str) -> list[Passage]:
    """The places in the corpus where a text stands."""
    return _passages(stamped(opened.path), text)


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
