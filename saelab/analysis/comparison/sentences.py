"""The two questions about two SAEs, answered in a sentence each: do these runs differ, and do their
configurations?"""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab.statistics import FEW
from saelab.statistics.seeds import ENOUGH

VERDICTS = ("better", "worse", "not told apart")


def of_runs(rows: Sequence[Mapping[str, Any]], n_documents: int) -> str:
    """What paired differences (rows of compare.json) say of the second of two runs.

    >>> of_runs([{"label": "FVU", "verdict": "better"}], 40)
    'These two runs, paired over 40 documents: B is better in FVU.'
    """
    few = f" (fewer than {FEW}: Student's t)" if n_documents < FEW else ""
    return f"These two runs, paired over {n_documents} documents{few}: {_said(rows)}."


def of_configurations(compared: Mapping[str, Any] | None) -> str:
    """The same of their configurations over seeds; None: they are one configuration."""
    if compared is None:
        return "These two configurations are one: the runs differ by their seeds alone."
    counts = [len(compared["first"]), len(compared["second"])]
    rows = compared["differences"]
    told = [row for row in rows if row["pairing"] != "unknown"]
    if not told:
        of_each = " and ".join(map(str, counts))
        return (
            f"These two configurations: spread not known, with {of_each} seeds; {ENOUGH} of each "
            "are needed."
        )
    n = min(row["n"] for row in told)
    how = "matched" if told[0]["pairing"] == "matched" else "not the same ones"
    return f"These two configurations, over {n} seeds each ({how}): {_said(told)}."


def _said(rows: Sequence[Mapping[str, Any]]) -> str:
    by_verdict = {
        word: [row["label"] for row in rows if row["verdict"] == word] for word in VERDICTS
    }
    parts = [
        f"{'' if word == 'not told apart' else 'B is '}{word} in {', '.join(labels)}"
        for word, labels in by_verdict.items()
        if labels
    ]
    return "; ".join(parts) or "no metric says which is better"
