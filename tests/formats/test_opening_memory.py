"""A dictionary opens in little more memory than its tensors take."""

import sys

import pytest

from benchmarks import opening

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MOST = 1.2  # times its tensors


def test_a_wide_dictionary_opens_in_its_tensors_and_a_fifth():
    costs = opening.measured(65_536, 2304, "BF16")
    assert costs["tensors"] > 1.2e9 and costs["ratio"] <= MOST


def test_pages_that_are_not_given_back_are_seen():
    """The twin: the whole file is in memory beside what is made of it."""
    assert opening.measured(8192, 2304, "F32", keep=True)["ratio"] > 1.8
