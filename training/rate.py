"""The learning rate: its default for a run's length and width, and whether the loss was still
falling when the rate began to."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from saelab.files import read_rows
from saelab.runs import RunFolder

SHORT = 0.0115  # the best rate of the shortest runs on inputs of width MEASURED, whatever F is
MEASURED, NARROWEST = 256, 64  # widths of inputs; none narrower than the second was measured
FEW = 1 / 8  # of the width: so many pairs per token or fewer make no difference
LONG_STEPS = 30_000  # the length that Gao et al.'s constant was found at
WINDOW = 0.2  # share of the steps; two of them, end to end, lie before the decay
FELL = 0.15  # a fall of the FVU from one window to the next that is worth a word


def default(n_steps: int, n_features: int, d_model: int, k: float) -> float:
    """The peak learning rate for a run's length, dictionary size, width of inputs (of unit mean
    square, so that no scale enters) and pairs per token: SHORT for the shortest runs, 2e-4 /
    sqrt(F / 2^14) (Gao et al. 2024) from LONG_STEPS on, between them their harmonic mean. Wide
    inputs take less, narrow ones more, and more still where k is a large part of the width.

    `benchmarks/learning_rate.py` says what was measured, and how near to the best this comes.

    >>> round(default(900, 4096, 256, 32), 4)
    0.0063
    """
    width = max(d_model, NARROWEST)
    narrow = MEASURED / width
    by_width = narrow ** (0.7 if narrow > 1 else 0.5) * max(1.0, k / (FEW * width)) ** 0.5
    shortest = SHORT * by_width
    longest = min(shortest, 2e-4 / (n_features / 2**14) ** 0.5 * max(1.0, by_width))
    share = min(1.0, n_steps / LONG_STEPS)
    return 1 / ((1 - share) / shortest + share / longest)


def rows(folder: Path) -> list[dict]:
    """The rows of a run's metrics.jsonl."""
    return read_rows(RunFolder(folder).metrics)


def fall(rows: Sequence[dict], n_steps: int, decay: float) -> float:
    """By what share the mean FVU of the last WINDOW of the steps before the decay lies below that
    of the WINDOW before it; 0 for a run too short to have rows in both."""
    end, width = (1 - decay) * n_steps, WINDOW * n_steps
    late, early = (
        [row["fvu"] for row in rows if start < row["step"] <= start + width]
        for start in (end - width, end - 2 * width)
    )
    return 1 - fmean(late) / fmean(early) if late and early else 0.0
