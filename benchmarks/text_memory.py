"""Peak memory of reading texts of one size and of ten times that size, each in a process of its
own. `python benchmarks/text_memory.py --megabytes 30 --out benchmarks/results/text_memory.json`.

The texts are random letters, so that a file is about as large as what it holds. A Parquet file is
one row group, an array one line: what tempts a reader to hold all of it. The last kind is one
document of a whole file, whose text is held, and whose tokens must not be.
"""

import argparse
import csv
import json
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

DOCUMENT = 4_000  # characters
LETTERS = "abcdefghijklmnopqrstuvwxyz      \n"


def texts(megabytes: float) -> Iterator[str]:
    """Documents of so many megabytes."""
    rng = random.Random(0)
    pool = "".join(rng.choices(LETTERS, k=1 << 20))
    for _ in range(int(megabytes * 1e6) // DOCUMENT):
        at = rng.randrange(len(pool) - DOCUMENT)
        yield pool[at : at + DOCUMENT].replace("\n\n", "\n") + "."


def array(path: Path, megabytes: float) -> None:
    """One JSON array on one line."""
    with path.open("w") as file:
        for number, text in enumerate(texts(megabytes)):
            file.write(("," if number else "[") + json.dumps({"text": text, "n": number}))
        file.write("]")


def lines(path: Path, megabytes: float) -> None:
    """JSON lines."""
    with path.open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(megabytes))


def table(path: Path, megabytes: float) -> None:
    """CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["n", "text"], *((n, t) for n, t in enumerate(texts(megabytes)))]
        )


def parquet(path: Path, megabytes: float) -> None:
    """One row group, not compressed."""
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.table({"text": [*texts(megabytes)]})
    pyarrow.parquet.write_table(rows, path, row_group_size=1 << 30, compression="none")


def plain(path: Path, megabytes: float) -> None:
    """Paragraphs."""
    with path.open("w") as file:
        file.writelines(text + "\n\n" for text in texts(megabytes))


WRITERS: dict[str, Callable[[Path, float], None]] = {
    "a.parquet": parquet,
    "a.json": array,
    "a.jsonl": lines,
    "a.csv": table,
    "a.txt": plain,
}


def peak_mb() -> float:
    """This process's peak memory so far. Linux only: what `getrusage` says there includes the
    process that this one was forked from."""
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    return int(kilobytes) / 1e3


def read(path: Path) -> dict[str, float]:
    """Read a text to its end in this process."""
    from saelab.activations.text import Text

    imports_mb = peak_mb()
    n_documents = n_characters = 0
    for document in Text(str(path)).documents():
        n_documents += 1
        n_characters += len(document.text)
    counts = {"documents": n_documents, "characters": n_characters}
    return {**counts, "imports_mb": imports_mb, "peak_mb": peak_mb()}


def tokenise(path: Path) -> dict[str, float]:
    """Tokenise a folder whose one file is one document."""
    from transformers import AutoTokenizer

    from saelab.activations.reading import Reading
    from saelab.activations.text import Text
    from saelab.models.loading import locate

    reader = Reading(Text(str(path)), AutoTokenizer.from_pretrained(locate("bundled").folder))
    imports_mb = peak_mb()
    n_tokens = sum(len(ids) for _, pieces in reader.tokenised() for ids in pieces)
    return {"tokens": n_tokens, "imports_mb": imports_mb, "peak_mb": peak_mb()}


def measured(name: str, how: str, megabytes: float) -> dict[str, float]:
    """Write a text and read it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](path, megabytes)
        place = folder if how == "tokenise" else path
        command = [sys.executable, __file__, "--child", how, str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return {"file_mb": path.stat().st_size / 1e6, **json.loads(done.stdout)}


def compare(name: str, how: str, megabytes: float) -> dict:
    """One kind at both sizes, and how much the peak grows."""
    small, large = (measured(name, how, size) for size in (megabytes, 10 * megabytes))
    growth = large["peak_mb"] / small["peak_mb"] - 1
    return {"kind": name, "how": how, "small": small, "large": large, "growth": round(growth, 4)}


def main() -> None:
    """Print, and keep with --out, what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2)
    args = parser.parse_args()
    if args.child:
        how, path = args.child
        print(json.dumps({"read": read, "tokenise": tokenise}[how](Path(path))))
        return
    rows = [compare(name, "read", args.megabytes) for name in WRITERS]
    rows.append(compare("a.txt", "tokenise", args.megabytes / 10))
    result = {"machine": platform.platform(), "megabytes": args.megabytes, "rows": rows}
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
