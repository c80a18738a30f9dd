"""What the pages show, read from run directories; the only file with Streamlit's caches."""

import json
import os
from pathlib import Path

import streamlit as st

from saelab.features.listing import Keep
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example, Feature, Hit, Passage, Table
from saelab.files import read_rows
from saelab.folders import find
from saelab.runs import RunFolder, read

from . import PLACES


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


def _stamp(path: Path) -> tuple[str, int, int]:
    """A file's identity: an index or report that is written anew is read anew."""
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


@st.cache_resource(max_entries=8, show_spinner=False)
def _opened(stamp: tuple[str, int, int]) -> FeatureIndex:
    return FeatureIndex(stamp[0])


@st.cache_data(max_entries=64, show_spinner=False)
def _lines(stamp: tuple[str, int, int]) -> list[dict]:
    return read_rows(Path(stamp[0]))


def index(run: Path) -> FeatureIndex | None:
    """The run's feature index, or None before `saelab index`. Raises UsageError for a damaged one
    or another version's."""
    path = RunFolder(run).features
    return _opened(_stamp(path)) if path.is_file() else None


@st.cache_data(max_entries=64, show_spinner=False)
def _document(stamp: tuple[str, int, int]) -> dict:
    return read(Path(stamp[0]))


def document(path: Path) -> dict:
    """The fields of a JSON document, empty if there is no such file. Raises FailedRun for a damaged
    one."""
    return _document(_stamp(path)) if path.is_file() else {}


def curves(run: Path) -> list[dict]:
    """The rows of metrics.jsonl; one that training has half written is left out."""
    path = RunFolder(run).metrics
    return _lines(_stamp(path)) if path.is_file() else []


@st.cache_data(max_entries=512, show_spinner=False)
def _feature(stamp: tuple[str, int, int], number: int) -> tuple[Feature, list[Example]]:
    opened = _opened(stamp)
    return opened.feature(number), opened.examples(number)


def feature(opened: FeatureIndex, number: int) -> tuple[Feature, list[Example]]:
    """A feature and its examples. Raises UsageError for a number the SAE does not have."""
    return _feature(_stamp(opened.path), number)


@st.cache_data(max_entries=128, show_spinner=False)
def _hits(stamp: tuple[str, int, int], search: str) -> dict[int, Hit]:
    return {hit.feature: hit for hit in _opened(stamp).search(search)}


def hits(opened: FeatureIndex, search: str) -> dict[int, Hit]:
    """What a search found, by feature, best first; nothing without a text."""
    return _hits(_stamp(opened.path), search) if search.strip() else {}


def table(
    opened: FeatureIndex, sort: str, descending: bool, search: str, limit: int, offset: int
) -> Table:
    """A page of the feature table. sort: `matches`, best first, or one of the reader's. Raises
    UsageError for another."""
    matching = hits(opened, search)
    if sort == "matches":
        numbers = [*matching][offset : offset + limit]
        return Table(opened.rows(numbers), len(matching))
    keep = Keep(numbers=[*matching]) if search.strip() else Keep()
    return opened.table(sort, descending, keep, limit, offset)


@st.cache_data(max_entries=64, show_spinner=False)
def _passages(stamp: tuple[str, int, int], text: str) -> tuple[list[str], list[Passage]]:
    opened = _opened(stamp)
    return opened.tokens(text), opened.passages(text)


def passages(opened: FeatureIndex, text: str) -> tuple[list[str], list[Passage]]:
    """The tokens that contain a text, and the places where it stands."""
    return _passages(_stamp(opened.path), text)
