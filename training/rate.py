"""The learning rate: its default for a run's length and width, and whether the loss was still
falling when the rate began to."""

import json
from pathlib import Path
from statistics import fmean

from saelab.runs import RunFolder

SHORT = 0.009  # the best rate of the shortest runs, whatever their width
LONG_STEPS = 30_000  # the length that Gao et al.'s constant was found at
WINDOW = 0.2  # share of the steps; two of them, end to end, lie before the decay
FELL = 0.15  # a fall of the FVU from one window to the next that is worth a word


def default(n_steps: int, n_features: int) -> float:
    """The peak learning rate of a run of this length and dictionary size: SHORT for the shortest
    runs, 2e-4 / sqrt(F / 2^14) (Gao et al. 2024) from LONG_STEPS on, their harmonic sum between.

    `benchmarks/learning_rate.py` measured it; inputs have unit mean square, so no scale enters.
    """
    longest = 2e-4 / (n_features / 2**14) ** 0.5
    share = min(1.0, n_steps / LONG_STEPS)
    return 1 / ((1 - share) / SHORT + share / longest)


def fall(folder: Path, n_steps: int, decay: float) -> float:
    """By what share the mean FVU of the last WINDOW of the steps before the decay lies below that
    of the WINDOW before it; 0 for a run too short to have rows in both."""
    rows = [json.loads(line) for line in RunFolder(folder).metrics.read_text().splitlines()]
    end, width = (1 - decay) * n_steps, WINDOW * n_steps
    late, early = (
        [row["fvu"] for row in rows if start < row["step"] <= start + width]
        for start in (end - width, end - 2 * width)
    )
    return 1 - fmean(late) / fmean(early) if late and early else 0.0
