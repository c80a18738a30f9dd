"""How torch's OpenMP threads wait for work: read when torch is loaded, so it is said before."""

import os
from collections.abc import MutableMapping

SPINS = "1000"  # some 20 microseconds, which spans the gap between the operations of one layer


def wait_asleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let GNU OpenMP's threads sleep soon after each operation, unless the user has said how they
    wait.

    By default they spin for some 5 ms on cores that our own loops then have to share: on two cores
    every loop after a product took twice as long.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
