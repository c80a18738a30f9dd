"""A run to export: its index with what is said of its features."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from saelab.errors import UsageError
from saelab.explaining import store
from saelab.explaining.records import Explanation
from saelab.features.annotations import Annotation, Annotations, identity
from saelab.features.reader import FeatureIndex
from saelab.runs import RunFolder


class Subject(NamedTuple):
    """A run, opened."""

    name: str
    folder: RunFolder
    reader: FeatureIndex
    explanations: dict[int, Explanation]
    annotations: dict[int, Annotation]

    def annotation(self, feature: int) -> Annotation:
        """What people say of a feature."""
        return self.annotations.get(feature, Annotation(feature))

    @property
    def live(self) -> list[int]:
        """The features that fired on the indexed tokens."""
        density_F = self.reader.densities()
        return [feature for feature, density in enumerate(density_F.tolist()) if density > 0]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Subject]:
    """A run, opened as by `open` for the block."""
    held = open(path)
    try:
        yield held
    finally:
        held.reader.close()


def open(path: Path) -> Subject:
    """A run with a feature index. Raises UsageError where it has none, or one of another
    version."""
    folder = RunFolder(path)
    if not folder.features.is_file():
        raise UsageError(f"{path} has no feature index: `saelab index {path}` makes it")
    index = FeatureIndex(folder.features)
    annotations = Annotations(folder.annotations, identity(index.summary), index.n_features)
    said = (store.explanations(folder), annotations.all())
    return Subject(folder.path.resolve().name, folder, index, *said)
