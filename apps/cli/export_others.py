"""Writing what a run holds beside its SAE as other tools read it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from saelab.errors import UsageError

from .common import megabytes
from .numbers import numbers
from .progress import bar

SAMPLE = 24  # features that are written to say how large a folder will be


class Asked(Protocol):
    """What is asked of the options of `saelab export`."""

    @property
    def to(self) -> str:
        """The form."""
        ...

    @property
    def cache(self) -> Path | None:
        """An activation cache."""
        ...

    @property
    def tokens(self) -> int:
        """How many of it to read."""
        ...

    @property
    def place(self) -> str:
        """The device."""
        ...

    @property
    def features(self) -> str:
        """Features by number."""
        ...

    @property
    def model_id(self) -> str:
        """Neuronpedia's name of the model."""
        ...

    @property
    def set(self) -> str:
        """Neuronpedia's name of the set of SAEs."""
        ...


def delphi(args: Asked, folder: Path, place: Path) -> None:
    """What its features are on its cache."""
    from saelab import opening
    from saelab.formats import delphi as form

    options = {"needs": ("cache",), "device": args.place}
    _, sae, cache, _ = opening.open(folder, cache=args.cache, **options)
    n_tokens = min(args.tokens, cache.n_tokens("train"))
    with bar(n_tokens, "token") as shown:
        form.write(sae, cache, place, n_tokens=n_tokens, progress=shown.to)


def dashboards(args: Asked, folder: Path, place: Path) -> None:
    """What its index says of its features; how large that will be is said first."""
    from saelab import opening
    from saelab.features.reader import FeatureIndex
    from saelab.formats import neuronpedia, sae_dashboard
    from saelab.outdated import outdated
    from saelab.runs import RunFolder

    run, sae = RunFolder(folder), opening.told(folder)
    if run.features.name in outdated(run):
        raise UsageError(f"{run.features} is of another SAE: run `saelab index {folder}` again")
    name = args.set or folder.resolve().name
    source = sae_dashboard.Source.of(sae, args.model_id, name)
    write = {"sae_dashboard": sae_dashboard.write, "neuronpedia": neuronpedia.write}[args.to]
    with FeatureIndex(run.features) as index:
        asked, density_F = numbers(args.features or "all", index.n_features), index.densities()
        live = [number for number in asked if density_F[number]]
        if not live:
            raise UsageError(f"none of these features of {folder} fired on the indexed tokens")
        size = _size(lambda some, out: write(sae, index, out, source, chosen=some), live)
        much = f"{len(live):,} features that fired, about {megabytes(size)}"
        print(f"{place}: {much}", file=sys.stderr)
        with bar(len(asked), "feature") as shown:
            write(sae, index, place, source, progress=shown.to, chosen=asked)


def _size(write: Callable[[Sequence[int], Path], None], features: Sequence[int]) -> int:
    """About how many bytes these features take, by SAMPLE of them."""
    sample = features[:: max(1, len(features) // SAMPLE)]
    with TemporaryDirectory() as folder:
        write(sample, Path(folder))
        written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return round(written / len(sample) * len(features))


def saebench(args: Asked, folder: Path, place: Path) -> None:
    """What its report says, by SAEBench's names."""
    from saelab import opening
    from saelab.files import write_json
    from saelab.formats import saebench_others, saebench_results
    from saelab.outdated import outdated
    from saelab.runs import RunFolder, read

    run = RunFolder(folder)
    if not run.report.is_file():
        raise UsageError(f"{folder} has no report: run `saelab eval {folder}` first")
    if run.report.name in outdated(run):
        raise UsageError(f"{run.report} is of another SAE: run `saelab eval {folder}` again")
    name, millis = folder.resolve().name, int(run.report.stat().st_mtime * 1000)
    text, context = _text(args, folder)
    report, sae = read(run.report), opening.told(folder)
    options = {"dataset": text, "context": context}
    results = {"core": saebench_results.core(report, sae, name, millis=millis, **options)}
    results |= saebench_others.others(report, sae, name, millis=millis)
    for kind, result in results.items():
        write_json(place / kind / f"{name}_{saebench_results.SAE_ID}_eval_results.json", result)


def _text(args: Asked, folder: Path) -> tuple[str, int]:
    """The text of a run's cache and the length of its contexts, where it is still there."""
    from saelab import opening

    try:
        cache = opening.open(folder, cache=args.cache, needs=("cache",)).cache
    except UsageError:
        return "", 0
    return cache.plan.text, cache.context
