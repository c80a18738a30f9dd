"""The tables of an open index, as columns and records. Imports no torch."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saelab.errors import UsageError
from saelab.features import file, schema
from saelab.features.packing import unpack
from saelab.features.records import Row
from saelab.features.vocabulary import Vocabulary

NUMBERS = ("fired", "density", "mean", "max", "positive", "interest")


class Stored:
    """An index's file, opened; whatever is found damaged in reading it is a FailedRun."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection, self.summary = file.open(path)

    @cached_property
    def arrays(self) -> dict[str, NDArray]:
        """A column [F], or rows [F, K], per name: NUMBERS, `examples` (how many), `listed` (ids of
        the strongest tokens), `entropy` (bits, of the tokens), `map`, and of the n-th other SAE
        `nearest/n`, `cosine/n`, `partner/n`, `partner_cosine/n`."""
        rows = self.ask("select name, dtype, shape, entries from array")
        with file.damage(self.path):
            return {
                name: np.frombuffer(entries, dtype).reshape(json.loads(shape))
                for name, dtype, shape, entries in rows
            }

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the tokens read."""
        with file.damage(self.path):
            return Vocabulary(self.connection)

    def ask(self, sql: str, *arguments: object) -> list[tuple]:
        """All rows of an answer."""
        with file.damage(self.path):
            return self.connection.execute(sql, arguments).fetchall()

    def lists(self, feature: int, *names: str) -> list[NDArray]:
        """Records of a feature's row. Raises UsageError for a number the SAE does not have."""
        if not 0 <= feature < self.summary["n_features"]:
            last = self.summary["n_features"] - 1
            raise UsageError(f"no feature {feature}: this SAE has features 0 to {last}")
        sql = f"select {', '.join(names)} from feature where id = ?"
        (row,) = self.ask(sql, feature)
        with file.damage(self.path):
            return [unpack(blob, schema.LISTS[name]) for name, blob in zip(names, row, strict=True)]

    def row(self, feature: int) -> Row:
        """What a list says of a feature."""
        arrays = self.arrays
        numbers = {name: arrays[name][feature].item() for name in NUMBERS}
        other = cosine = partner_cosine = None
        if "nearest/0" in arrays:
            other, cosine = int(arrays["nearest/0"][feature]), float(arrays["cosine/0"][feature])
            partner_cosine = known(arrays["partner_cosine/0"][feature])
        return Row(
            feature=feature,
            **numbers,
            tokens=self.listed(feature),
            other=other,
            cosine=cosine,
            partner_cosine=partner_cosine,
        )

    def listed(self, feature: int) -> list[str]:
        """A feature's strongest tokens."""
        if "listed" not in self.arrays:
            return []
        ids = self.arrays["listed"][feature].tolist()
        return [self.vocabulary.text(token) for token in ids if token >= 0]

    def document(self, owners: str, position: int) -> str:
        """The name of the document a position of a context lies in."""
        number = [document for head, document in json.loads(owners) if head <= position][-1]
        return self.ask("select name from document where id = ?", number)[0][0]


def known(value: float) -> float | None:
    """A number, None for nan."""
    return None if np.isnan(value) else float(value)
