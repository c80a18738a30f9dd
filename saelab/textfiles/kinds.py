"""Which kind of text a file or folder holds: told by its name, or, where that says nothing, by how
it begins."""

from pathlib import Path

from saelab.textfiles import opening

TEXT = set(
    """
    .c .cpp .css .go .h .html .java .js .md .py .rs .rst .sh .tex .toml .ts .txt .xml .yaml .yml
    """.split()
)
KINDS = {
    **dict.fromkeys(TEXT, "text"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".jsonlines"), "json"),
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
SUFFIXES = sorted(KINDS)
COMPRESSED = {".gz", ".bz2", ".xz", ".lzma", ".zst", ".zstd"}


def kind(path: Path) -> str:
    """The kind that a file's name says, whatever its case and compression: text, json, csv, tsv or
    parquet; "" where it says none.

    >>> kind(Path("A.JSONL.gz"))
    'json'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return KINDS.get(suffixes[-1], "") if suffixes else ""


def is_dataset(folder: Path) -> bool:
    """Whether `datasets` wrote this folder with `save_to_disk`."""
    one, several = ("state.json", "dataset_info.json"), ("dataset_dict.json",)
    return any(all((folder / name).is_file() for name in names) for names in (one, several))


def beginning(path: Path) -> str:
    """The kind that a file's first bytes say: parquet, json, else text."""
    with opening.binary(path) as file:
        head = file.read(1 << 12)
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "json" if first.startswith((b'{"', b'[{"', b'["')) else "text"
