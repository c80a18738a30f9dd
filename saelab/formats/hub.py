"""Published SAEs by a name of the Hugging Face hub: `hub:org/repo/path`, the local cache first."""

from pathlib import Path

from saelab.errors import UsageError
from saelab.models import hub

PREFIX = "hub:"


def fetched(name: str) -> Path:
    """The folder or file of a hub name, downloaded if the local cache has not got it.

    Raises UsageError for what is no such name, and, within seconds, where the hub does not answer:
    then with what would be fetched.

        fetched("hub:google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
    """
    from huggingface_hub import snapshot_download

    org, repo, inner = _parts(name)
    if (cached := _cached(f"{org}/{repo}", inner)) is not None:
        return cached
    answer = hub.has(f"{org}/{repo}", "model")
    if answer != "yes":
        raise UsageError(
            f"{name} is not in the local cache of the hub and {hub.refusal(answer)}: "
            f"{inner or 'everything'} of {org}/{repo} would be fetched; name a local folder instead"
        )
    place = Path(snapshot_download(f"{org}/{repo}", allow_patterns=_patterns(inner))) / inner
    if not place.exists():
        raise UsageError(f"the repository {org}/{repo} has no {inner}")
    return place


def held(name: str) -> Path:
    """The folder or file of a hub name in the local cache. Raises UsageError where it is not
    there: nothing is fetched."""
    org, repo, inner = _parts(name)
    place = _cached(f"{org}/{repo}", inner)
    if place is None:
        raise UsageError(f"{name} is not in the local cache of the hub: `saelab import` fetches it")
    return place


def _parts(name: str) -> tuple[str, str, str]:
    """Organisation, repository, path inside. Raises UsageError for what is no such name."""
    org, _, rest = name.removeprefix(PREFIX).partition("/")
    repo, _, inner = rest.partition("/")
    if not (org and repo):
        raise UsageError(f"{name} names no repository: {PREFIX}org/repo/path is right")
    return org, repo, inner


def _patterns(inner: str) -> list[str] | None:
    """What of a repository belongs to one SAE: its folder or file, and the configurations above."""
    if not inner:
        return None
    above = [str(parent / "*.json") for parent in Path(inner).parents]
    yaml = [pattern.replace(".json", ".yaml") for pattern in above]
    return [inner, f"{inner}/*", *above, *yaml]


def _cached(repo: str, inner: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        place = Path(snapshot_download(repo, local_files_only=True)) / inner
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return place if place.exists() else None
