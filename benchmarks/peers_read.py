"""What we write, opened by the packages that own its forms, and what they save, opened by us, each
package in an environment of its own: reconstructions side by side.

    python benchmarks/peers_read.py write DIR          # where saelab is installed
    python benchmarks/peers_read.py read DIR sae_lens  # where sae_lens is; so for each package
    python benchmarks/peers_read.py save DIR sae_lens  # there too
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

from benchmarks.peers import readers, savers


def _collected(folder: Path) -> dict[str, Any]:
    """All that was found, by package."""
    from benchmarks.peers import ours

    whole: dict[str, Any] = {"d": ours.D, "features": ours.F, "k": ours.K}
    for package in readers.READERS:
        path = folder / f"{package}.json"
        if not path.is_file():
            whole[package] = "not run"
            continue
        whole[package] = json.loads(path.read_text())
        if (folder / package / "theirs").is_dir():
            whole[package]["we open theirs"] = ours.opened(folder, package)
    return whole


def main() -> None:
    """Write, read, save or collect."""
    parser = argparse.ArgumentParser(description="Their files and ours.")
    parser.add_argument("step", choices=("write", "read", "save", "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("package", nargs="?", choices=tuple(readers.READERS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.step == "write":
        from benchmarks.peers import ours

        ours.write(args.folder)
    elif args.step == "read":
        name = readers.DISTRIBUTIONS[args.package]
        said = {"version": version(name) if name else "its repository at 764586a"}
        said |= {"it opens ours": readers.read(args.folder, args.package)}
        (args.folder / f"{args.package}.json").write_text(json.dumps(said, indent=1))
        print(json.dumps(said, indent=1))
    elif args.step == "save":
        print("\n".join(savers.save(args.folder, args.package)))
    else:
        text = json.dumps(_collected(args.folder), indent=1)
        print(text)
        if args.out:
            args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
