"""What we write, opened by the packages that own its forms, and what they save, opened by us, each
package in an environment of its own: reconstructions side by side.

    python benchmarks/peers_read.py write DIR          # where saelab is installed
    python benchmarks/peers_read.py read DIR sae_lens  # where sae_lens is; so for each package
    python benchmarks/peers_read.py save DIR sae_lens  # there too
    python benchmarks/peers_read.py export DIR --run RUN  # one with an index and a report; saelab
    python benchmarks/peers_read.py read DIR delphi  # sae_dashboard, neuronpedia, sae_bench
    python benchmarks/peers_read.py show DIR --out benchmarks/results/peers_read.json  # saelab

sparsify without a GPU wants SPARSIFY_DISABLE_TRITON=1; dictionary_learning imports nnsight, which
an empty module with a class LanguageModel may stand in for. OpenAI's sparse_autoencoder is no
package of an index: its repository's folder on the path will do.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # behind the packages of the environment

from benchmarks.peers import readers, results, savers

PACKAGES = (*readers.READERS, *results.READERS)


def _collected(folder: Path) -> dict[str, Any]:
    """All that was found, by package."""
    from benchmarks.peers import ours

    whole: dict[str, Any] = {"d": ours.D, "features": ours.F, "k": ours.K}
    for package in PACKAGES:
        path = folder / f"{package}.json"
        if not path.is_file():
            whole[package] = "not run"
            continue
        whole[package] = json.loads(path.read_text())
        if (folder / package / "theirs").is_dir():
            whole[package]["we open theirs"] = ours.opened(folder, package)
    return whole


def _read(folder: Path, package: str) -> None:
    """What a package makes of ours, into DIR/PACKAGE.json."""
    names = {**readers.DISTRIBUTIONS, **results.DISTRIBUTIONS}
    said: dict[str, Any] = {"version": "its repository at 764586a"}
    if names[package]:
        said = {"version": version(names[package])}
    home = readers if package in readers.READERS else results
    said["it opens ours"] = home.read(folder, package)
    (folder / f"{package}.json").write_text(json.dumps(said, indent=1))
    print(json.dumps(said, indent=1))


def main() -> None:
    """Write, read, save or collect."""
    parser = argparse.ArgumentParser(description="Their files and ours.")
    parser.add_argument("step", choices=("write", "read", "save", "export", "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("package", nargs="?", choices=PACKAGES)
    parser.add_argument("--run", type=Path, help="of export")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.step == "write":
        from benchmarks.peers import ours

        ours.write(args.folder)
    elif args.step == "export":
        results.export(args.folder, args.run)
    elif args.step == "read":
        _read(args.folder, args.package)
    elif args.step == "save":
        print("\n".join(savers.save(args.folder, args.package)))
    else:
        text = json.dumps(_collected(args.folder), indent=1)
        print(text)
        if args.out:
            args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
