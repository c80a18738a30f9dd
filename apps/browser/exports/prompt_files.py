"""What the page of a prompt shows, as tables and as one HTML file. Imports no Streamlit."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import addresses, draw, prompt
from ..html import html
from .document import page
from .records import Table, table

if TYPE_CHECKING:
    from saelab.analysis.prompts import ErrorSplit
    from saelab.prompting import Reading

NAMES = ("prompt-tokens", "prompt-features")
ROWS = 100  # features that the file lists


def tables(reading: "Reading", split: "ErrorSplit | None") -> list[Table]:
    """The tokens, with the loss of predicting each and the parts of the SAE's error, and every pair
    of a token and a feature that fires there."""
    texts, loss = reading.prompt.texts, reading.read.loss
    columns: dict[str, Any] = {
        "position": range(len(texts)),
        "id": reading.prompt.tokens.tolist(),
        "token": texts,
        "loss": [None] * len(texts) if loss is None else [None, *loss.tolist()],
    }
    if split is not None:
        known = {name: column for name, column in split._asdict().items() if column is not None}
        columns |= {name: column.tolist() for name, column in known.items()}
    rows = reading.table
    position = rows.position.tolist()
    pairs: dict[str, Any] = {"position": position, "token": [texts[at] for at in position]}
    for name in ("feature", "value", "usual", "effect"):
        column = getattr(rows, name)
        if column is not None:
            values = column.tolist()
            pairs[name] = [None if np.isnan(value) else value for value in values]
    return [_table(name, one) for name, one in zip(NAMES, (columns, pairs), strict=True)]


def _table(name: str, columns: dict[str, Any]) -> Table:
    rows = zip(*columns.values(), strict=True)
    return table(name, [dict(zip(columns, row, strict=True)) for row in rows])


def one(
    run: str, reading: "Reading", split: "ErrorSplit | None", known: prompt.Known, by: Any
) -> str:
    """The text shaded by its loss, its strongest features and what the SAE misses of each token."""
    from saelab.analysis import prompts

    order = prompts.strongest(reading.table, by, ROWS).tolist()
    loss = reading.read.loss
    values = None if loss is None else [0.0, *loss.tolist()]
    with addresses.addressed(lambda *_: None):
        title = html('<h1>Prompt</h1><p class="quiet">{}</p>', run)
        strip = prompt.strip(reading.prompt, values, None, "loss")
        rows = prompt.features(reading.table, order, run, reading.prompt, known, None)
        name, _ = prompt.COLUMNS[by]
        body = [title, draw.title("Tokens", "shaded by the loss of predicting them"), strip]
        body += [draw.title("Strongest features", f"by {name}"), rows]
        if split is not None:
            body += [draw.title("Error"), prompt.errors(reading.prompt, split)]
    return page(f"{run}: prompt", body)
