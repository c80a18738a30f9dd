"""What a folder or file is, and whether it is whole. Importing this imports nothing heavy."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from saelab import digests, foreign, looking
from saelab.errors import FailedRun, UsageError
from saelab.files import read_rows
from saelab.looking import File
from saelab.origin import Origin
from saelab.outdated import outdated
from saelab.runs import RunFolder, kind_of, read


class Inspected(NamedTuple):
    """What lies at a path."""

    kind: Literal[
        "cache", "run", "sae", "document", "checkpoint", "index", "explanations",
        "published SAE", "published SAEs", "model", "graphs", "circuit",
    ]  # fmt: skip
    finished: bool
    """whether the work that makes it came to its end"""
    facts: dict[str, Any]
    """what it says of itself; empty where that cannot be read"""
    files: list[File]

    @property
    def damaged(self) -> list[File]:
        """Those with a problem."""
        return [file for file in self.files if file.problem]


def inspect(path: Path | str, verify: bool = False) -> Inspected:
    """What a cache, a run, a `sae/` folder or one of their files is, or what others published: an
    SAE, a folder of several, a model; also a folder of graphs or of a circuit. verify: read every
    digest, not only those of JSON files, and of a published SAE every weight.

    path: also `hub:org/repo/path`, in the local cache of the hub, and `bundled`. Raises UsageError
    for a path where nothing known lies.

        inspect("runs/demo", verify=True).damaged
    """
    from saelab import formats
    from saelab.formats import describing

    name, path = str(path), foreign.place(path)
    if (path / "manifest.json").is_file():
        return _cache(path, verify)
    if (path / "sae.json").is_file():
        return Inspected("sae", True, _header(path), list(_sae(path, "", verify)))
    if path.match("step-*") and path.is_dir():
        return Inspected("checkpoint", True, {}, list(looking.checkpoint(path, "", verify)))
    if path.is_dir() and (RunFolder(path).is_run() or RunFolder(path).config.is_file()):
        return _run(RunFolder(path), verify)
    if RunFolder(path).is_graphs():
        return Inspected("graphs", True, *looking.results(path))
    if RunFolder(path).is_circuit():
        return Inspected("circuit", True, *looking.results(path))
    if path.is_file() and (of_file := _single(path, verify)):
        return of_file
    if foreign.is_model(path):
        return Inspected("model", True, *foreign.model(path, verify))
    if form := formats.known(path):
        return Inspected("published SAE", True, *foreign.sae(path, form.name, name, verify))
    if holds := describing.of_many(path, name):
        return Inspected("published SAEs", True, holds, [])
    known = (
        "a cache, a run, a sae/ folder, a checkpoint, a features.db or a document of saelab's, a "
        "folder of graphs or of a circuit, a model in Hugging Face layout, and published SAEs: "
        + ", ".join(formats.FORMATS)
    )
    raise UsageError(f"{path} is not known here: {formats.seen(path)}; known are {known}")


# --- caches --------------------------------------------------------------------------------------


def _cache(path: Path, verify: bool) -> Inspected:
    from saelab.activations import manifest

    own = looking.document(path / "manifest.json", "manifest.json")
    if own.problem:
        return Inspected("cache", False, {}, [own])
    try:
        held = manifest.written(path)
    except FailedRun as error:  # of the lines beside it, perhaps
        return Inspected("cache", False, {}, [own._replace(digest="wrong", problem=str(error))])
    files = [looking.by_entry(path, entry, verify) for entry in manifest.entries(held)]
    facts = {
        "model": held["model"].get("name"),
        "text": held["settings"]["text"],
        "hooks": {name: entry["width"] for name, entry in held["hooks"].items()},
        "tokens": {split: manifest.n_tokens(held, split) for split in ("train", "held_out")},
        "context": held["settings"]["context"],
        "dtype": held["settings"]["dtype"],
        "shards": len(held["shards"]),
    }
    return Inspected("cache", held["complete"], facts, [own, *files])


# --- runs and SAEs -------------------------------------------------------------------------------


def _run(run: RunFolder, verify: bool) -> Inspected:
    checkpoints = sorted(run.checkpoints.glob("step-*"))
    documents = {
        path: looking.document(path, path.name) for path in sorted(run.path.glob("*.json"))
    }
    schema, index = _index(run.features, verify) if run.features.is_file() else (None, None)
    files = [
        *_edited(run),
        *(_sae(run.sae, "sae/", verify) if run.has_sae() else ()),
        *(
            file
            for path in checkpoints
            for file in looking.checkpoint(path, "checkpoints/", verify)
        ),
        *documents.values(),
        *_map(run.dark_matter_map, verify),
        *([index] if index else ()),
        *_explanations(run.explanations, verify),
    ]
    kept = _cache(run.cache, verify) if (run.cache / "manifest.json").is_file() else None
    files += [file._replace(file=f"cache/{file.file}") for file in kept.files] if kept else []
    readable = [path for path, file in documents.items() if not file.problem]
    facts = {
        **_header(run.sae),
        "step": int(checkpoints[-1].stem.removeprefix("step-")) if checkpoints else None,
        "reports": {path.name: kind_of(read(path)) for path in readable if path != run.training},
        "index": schema,
        "kept cache": kept.facts if kept else None,
        "of another SAE": [] if any(file.problem for file in files) else outdated(run),
    }
    return Inspected("run", run.has_sae(), facts, files)


def _map(path: Path, verify: bool) -> Iterator[File]:
    """The linear map that `saelab dark-matter` keeps, where there is one."""
    if path.is_file():
        is_right = partial(digests.tensors_right, path) if verify else None
        yield looking.look(path, path.name, is_right)


def _edited(run: RunFolder) -> Iterator[File]:
    """The files that people may edit, which have no digest: they are parsed."""
    rows = ((run.config, _fields), (run.metrics, _rows), (run.windows, _rows))
    for path, parse in (*rows, (run.annotations, _annotations)):
        if path.is_file():
            yield looking.look(path, path.name, partial(parse, path))._replace(digest="none")


def _annotations(path: Path) -> None:
    from saelab.features import edits

    edits.check(path)


def _fields(path: Path) -> None:
    import yaml

    if not isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
        raise FailedRun("it holds no fields")


def _rows(path: Path) -> None:
    read_rows(path)


def _header(folder: Path) -> dict[str, Any]:
    """What `sae.json` says of the SAE; nothing where there is none, or it cannot be read."""
    try:
        header = read(folder / "sae.json")
    except FailedRun:
        return {}
    if not header:
        return {}
    origin = Origin.from_dict(header.get("origin") or header.get("about") or {})
    return {
        **{name: header.get(name) for name in ("d_model", "n_features", "d_out")},
        **{name: getattr(origin, name) for name in ("hook", "target", "sparsify", "k", "tokens")},
        "model": origin.model.name if origin.model else None,
        "cache": origin.cache,
    }


def _sae(folder: Path, below: str, verify: bool) -> Iterator[File]:
    """The files of an SAE's folder, of our own form or another."""
    header, weights = folder / "sae.json", folder / "sae.safetensors"
    if not header.is_file():
        yield from foreign.files(folder, below)
        return
    own = looking.document(header, below + header.name)
    yield own
    entry = None if own.problem else read(header).get("weights")
    if entry:
        yield looking.by_entry(folder, entry, verify, below)
    else:
        yield looking.look(weights, below + weights.name, lambda: None)


# --- single files --------------------------------------------------------------------------------


def _single(path: Path, verify: bool) -> Inspected | None:
    """A file that says by itself whether it is whole; None for any other."""
    if path.name == "explanations.db":
        return Inspected("explanations", True, {}, list(_explanations(path, verify)))
    if path.suffix == ".db":
        schema, looked = _index(path, verify)
        return Inspected("index", True, {"schema": schema}, [looked])
    if path.match("step-*.safetensors"):
        return Inspected("checkpoint", True, {}, list(looking.checkpoint(path, "", verify)))
    if path.suffix != ".json":
        return None
    own = looking.document(path, path.name)
    document = {} if own.problem else read(path)
    ours = own.problem or str(document.get("schema")).startswith("saelab/")
    facts = {name: document.get(name) for name in ("schema", "saelab_version", "command")}
    return Inspected("document", True, facts, [own]) if ours else None


def _index(path: Path, verify: bool) -> tuple[str | None, File]:
    """A feature index: its schema, of whatever version; SQLite's own check, and the digest if that
    is read."""
    from saelab.features import file

    try:
        schema = file.schema(path)
    except (FailedRun, UsageError) as error:
        return None, File(path.name, path.stat().st_size, "wrong", str(error))
    return schema, looking.look(path, path.name, (lambda: file.is_right(path)) if verify else None)


def _explanations(path: Path, verify: bool) -> Iterator[File]:
    """The file of explanations, where there is one."""
    if not path.is_file():
        return
    from saelab.explaining import store

    try:
        store.sae(path)
    except (FailedRun, UsageError) as error:
        yield File(path.name, path.stat().st_size, "wrong", str(error))
        return
    yield looking.look(path, path.name, (lambda: store.is_right(path)) if verify else None)
