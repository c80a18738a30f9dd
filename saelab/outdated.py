"""Results in a run's folder that are of another SAE than it holds now, such as that from before it
was trained further. Importing this imports nothing heavy."""

from collections.abc import Iterator

from saelab.origin import CLT_WEIGHTS
from saelab.runs import RunFolder, read

OF = "sae"  # the field of a result that holds the SHA-256 of its SAE's weights


def outdated(run: RunFolder) -> list[str]:
    """Names of the results that say that they are of another SAE; those that do not say of which
    they are, as older ones, are none of them.

    outdated(RunFolder("runs/a"))  # ['features.db', 'report.json']
    """
    here, behind = run.sae_digest(), _left_behind(run)
    mine = [name for name, theirs in _saes(run) if behind or (here and theirs not in (None, here))]
    layers = [layer for layer in run.layers() if _left_behind(layer)]
    return mine + [f"{layer.path.name}/{layer.features.name}" for layer in layers]


def _left_behind(run: RunFolder) -> bool:
    """Whether it holds one layer of a cross-layer transcoder, which is another by now."""
    theirs = run.origin().more.get(CLT_WEIGHTS)
    return theirs is not None and RunFolder(run.path.parent).sae_digest() not in (None, theirs)


def _saes(run: RunFolder) -> Iterator[tuple[str, str | None]]:
    """Each result's name, and of which SAE it is."""
    if run.features.is_file():
        from saelab.features import file

        yield run.features.name, file.sae(run.features)
    if run.explanations.is_file():
        from saelab.explaining import store

        yield run.explanations.name, store.sae(run.explanations)
    for path in sorted(run.path.glob("*.json")):
        yield path.name, read(path).get(OF)
