"""Lists of features, and places where a text stands, kept while the files they are made of stay."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from saelab.features.annotations import Annotation
from saelab.features.listing import Keep
from saelab.features.reader import FeatureIndex
from saelab.features.records import Hit, Passage
from saelab.features.stable import Stable
from saelab.runs import RunFolder

from . import listing
from .listing import Listing
from .load import Stamp, annotated, explained, opened_at, stable, stamped


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
    known = stable(run, opened)
    stamps = (*stamps, None if known is None else stamped(RunFolder(run).stability))
    return _listed(stamped(opened.path), stamps, wanted, said, known, str(run))


def _asks_people(wanted: Listing) -> bool:
    return bool(wanted.only or (wanted.q and "labels" in wanted.places))


@st.cache_data(max_entries=64, show_spinner=False)
def _listed(
    stamp: Stamp,
    stamps: tuple,
    wanted: Listing,
    _said: dict[int, Annotation],
    _known: Stable | None,
    run: str,
) -> Listed:
    opened = opened_at(stamp)
    keep = Keep(
        density=(wanted.low, wanted.high),
        alive={"1": True, "0": False}.get(wanted.alive),
        sign=int(wanted.sign or 0),
        numbers=_only(opened, wanted.only, _said, _known),
        box=wanted.box,
    )
    if not wanted.q.strip():
        return Listed(_ordered(opened, wanted, keep, _known), {})
    texts = {"labels": _texts(_said), "explanations": explained(Path(run))}
    found = opened.search(wanted.asked, wanted.places, wanted.whole, texts, keep)
    hits = {hit.feature: hit for hit in found}
    if wanted.sorted_by == listing.MATCH:
        return Listed(np.array([*hits], np.int64), hits)
    among = keep._replace(numbers=[*hits])
    return Listed(_ordered(opened, wanted, among, _known), hits)


def _ordered(opened: FeatureIndex, wanted: Listing, keep: Keep, known: Stable | None) -> NDArray:
    """By a column of the index; by stability with equals by interest."""
    if wanted.sorted_by != listing.STABLE or known is None:
        return opened.order(wanted.sorted_by, wanted.descending, keep)
    order = opened.order(keep=keep)
    share_K = known.share[order]
    return order[np.argsort(-share_K if wanted.descending else share_K, kind="stable")]


def _texts(said: dict[int, Annotation]) -> dict[int, str]:
    """What is searched as a feature's label: the note behind it as well."""
    texts = {number: f"{one.label}\n{one.note}".strip() for number, one in said.items()}
    return {number: text for number, text in texts.items() if text}


def _only(
    opened: FeatureIndex, only: str, said: dict[int, Annotation], known: Stable | None
) -> list[int] | None:
    """Numbers of the features that are labelled, starred, on a list, found in the first other SAE,
    in every other seed or in none; None for all."""
    if only in ("stable", "unstable"):
        return [] if known is None else known.numbers(everywhere=only == "stable")
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
    return opened_at(stamp).passages(text)


def passages(opened: FeatureIndex, text: str) -> list[Passage]:
    """The places in the corpus where a text stands."""
    return _passages(stamped(opened.path), text)
