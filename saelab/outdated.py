"""Results in a run's folder that are of another SAE than it holds now, such as that from before it
was trained further. Importing this imports nothing heavy."""

from collections.abc import Iterator

from saelab.runs import RunFolder, read

OF = "sae"  # the field of a result that holds the SHA-256 of its SAE's weights


def outdated(run: RunFolder) -> list[str]:
    """Names of the results that say that they are of another SAE; those that do not say of which
    they are, as older ones, are none of them.

    outdated(RunFolder("runs/a"))  # ['features.db', 'report.json']
    """
    here = run.sae_digest()
    if here is None:
        return []
    return [name for name, theirs in _saes(run) if theirs not in (None, here)]


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
