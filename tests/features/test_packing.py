"""Packed lists: what comes back, and how small they are."""

import numpy as np
import pytest

from saelab.features.packing import pack, unpack
from saelab.features.schema import ID, LISTS, PAIR


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("n", [0, 1, 37])
def test_every_byte_of_any_records_comes_back(name, n):
    kind = LISTS[name]
    raw = np.random.default_rng(n).bytes(n * kind.itemsize)  # any bits, nans included
    records = unpack(pack(raw, kind.itemsize), kind)
    assert records.dtype == kind and len(records) == n
    assert records.tobytes() == raw


def test_records_that_were_cut_or_are_of_another_size_are_refused():
    blob = pack(np.arange(5, dtype=ID).tobytes(), ID.itemsize)
    for damaged in (blob[:-3], blob[:2] + b"\xff" + blob[3:], b"no zlib"):
        with pytest.raises(ValueError, match="cannot be unpacked"):
            unpack(damaged, ID)
    with pytest.raises(ValueError, match="reshape"):
        unpack(blob, np.dtype("V7"))


def test_places_and_values_take_little_more_than_half():
    rng = np.random.default_rng(0)
    pairs = np.zeros(200, PAIR)
    pairs["position"] = np.sort(rng.choice(256, 200, replace=False))
    pairs["value"] = 1 + rng.random(200)
    raw = pairs.tobytes()
    assert len(pack(raw, PAIR.itemsize)) < 0.55 * len(raw)
    # Without its bytes sorted by place it would take more.
    assert len(pack(raw, 1)) > 0.6 * len(raw)
