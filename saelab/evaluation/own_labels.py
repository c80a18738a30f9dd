"""What a few latents tell of one's own labelled texts: `saelab eval --labels`.

A file of texts and labels is a task, a folder of them several.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saelab.errors import UsageError
from saelab.evaluation import stretches, text_probes
from saelab.sae import SAE
from saelab.tasks import labelled_texts
from saelab.tasks.labelled_texts import LabelledTexts

ROWS = 4000  # of each file of a folder, at most
TOKENS = 2000  # of each label, and as many others, where spans are labelled

Told = Callable[[str], object]


def measure(
    path: Path,
    model: Any,
    saes: Mapping[str, SAE],
    *,
    bos: int | str | None = None,
    seed: int = 0,
    told: Told | None = None,
) -> dict[str, Any]:
    """Probes of every label of a file or folder, from k = 1, 2 and 5 features of each SAE, of the
    activation (`neurons`), of its principal components (`pca`), and from all of it (`dense`).

    Fields: `file`, `rows` (those of `text_probes.table` with `task` and `level`: the `last` token,
    `pooled` over all of a text or span, and each `token` where spans are given), `left_out`
    (reasons), `cut` (texts of a folder's files that were longer than the context; their end is
    read). told: called with each task's name. Raises UsageError for what `labelled_texts.read` and
    `stretches.contexts` refuse, for texts of which there is one alone, and where no label can be
    probed.

    >>> measure(Path("sentiment.csv"), model, {"sae": sae})["rows"][0]["auc"]["value"]
    """
    by_name, left_out = labelled_texts.tasks(path, ROWS)
    rows, cut = [], {}
    for name, task in by_name.items():
        if told:
            told(name)
        try:
            mine, reasons, n_cut = _task(task, model, saes, bos, seed, cut=path.is_dir())
        except UsageError as error:
            if not path.is_dir():
                raise UsageError(f"{path}: {error}") from None
            left_out[name] = str(error)
            continue
        rows += [{"task": name, **row} for row in mine]
        left_out |= {f"{name}, {which}": reason for which, reason in reasons.items()}
        cut |= {name: n_cut} if n_cut else {}
    if not rows:
        which, reason = next(iter(left_out.items()))
        raise UsageError(f"{path} holds no label that can be probed; {which}: {reason}")
    return {"file": str(path), "rows": rows, "left_out": left_out, "cut": cut}


def _task(
    rows: LabelledTexts,
    model: Any,
    saes: Mapping[str, SAE],
    bos: int | str | None,
    seed: int,
    *,
    cut: bool,
) -> tuple[list[dict[str, Any]], dict[str, str], int]:
    """The rows of one task, what was left out, and how many texts were cut."""
    known = stretches.contexts(model, rows, bos, cut=cut)
    if len(known.ids) < 2:
        raise UsageError("all its rows are of one text: give others to score the probes on")
    levels = stretches.of_rows(known, rows)
    if rows.spans is not None:
        levels["token"] = stretches.of_tokens(known, rows, TOKENS, seed)
    if not levels:
        raise UsageError(f"of its {len(rows.labels):,} rows that are read all have one label")
    hook = next(iter(saes.values())).origin.hook
    table, left_out = [], {}
    for level, parts in levels.items():
        inputs = stretches.averaged(model, hook, known.ids, saes, parts)
        mine, reasons = text_probes.table(inputs, parts.labels, parts.text, seed)
        table += [{"level": level, **row} for row in mine]
        left_out |= {f"{level}, {label}": reason for label, reason in reasons.items()}
    return table, left_out, known.cut
