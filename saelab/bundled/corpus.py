"""The text the bundled model was trained on: Python source that every installation has, mixed with
generated task prompts.

Files are read where Python and pip put them and never shipped. `held_out` is the project's one rule
for splitting documents.
"""

import hashlib
import importlib.util
import os
import random
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from saelab.bundled import prompts
from saelab.documents import Document

# Permissively licensed dependencies with much hand-written Python. Generated code (plotly's
# validators, say) is left out.
PACKAGES = tuple(
    """
    accelerate altair click datasets fsspec huggingface_hub jinja2 joblib llvmlite mpmath networkx
    numba numpy pandas plotly pyarrow pydantic pygments rich scipy sklearn streamlit sympy torch
    transformer_lens transformers wandb
    """.split()
)
SKIPPED_FOLDERS = set(
    """
    site-packages __pycache__ validators graph_objs _vendor vendor test_data lib2to3
    _inductor_generated proto vendored
    """.split()
)
SKIPPED_FILES = 200_000  # bytes: larger Python files are tables
PACKAGE_CAP = 6_000_000  # characters of any one package, so that none dominates
PROMPT_SHARE = 0.3  # of the mixture's characters; just under a quarter of its tokens


def stdlib_root() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def python_files(root: Path, folder: Path | None = None) -> Iterator[Document]:
    """Every UTF-8 .py file below `folder`, in the order of its name's digest (a fixed shuffle);
    names start at `root`."""
    paths = []
    for place, folders, files in os.walk(folder or root):
        # Not entered at all: a library of 13,000 files may lie in one of them.
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        paths += [Path(place, name) for name in files if name.endswith(".py")]
    small = (path for path in paths if path.stat().st_size <= SKIPPED_FILES)
    names = [path.relative_to(root).as_posix() for path in small]
    for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()):
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if text.strip():
            yield Document(name, text, name)


def stdlib() -> Iterator[Document]:
    """The Python source of the standard library this Python came with."""
    return python_files(stdlib_root())


def package(name: str) -> Iterator[Document]:
    """The Python source of an installed package of PACKAGES; nothing if it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        yield from python_files(folder.parent, folder)


def without_near_copies(documents: list[Document]) -> list[Document]:
    """Drop each training document that shares more than half of its lines with one held-out
    document, and exact repetitions."""
    lines = {
        d.name: Counter(line.strip() for line in d.text.splitlines() if line.strip())
        for d in documents
    }
    where: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        if document.held_out:
            for line in lines[document.name]:
                where[line].add(document.name)
    kept, seen = [], set()
    for document in documents:
        shared: Counter[str] = Counter()
        for line, n in lines[document.name].items():
            for name in where.get(line, ()):
                shared[name] += n
        near = (
            not document.held_out
            and shared
            and max(shared.values()) > lines[document.name].total() / 2
        )
        digest = hashlib.sha256(document.text.encode()).digest()
        if not near and digest not in seen:
            kept.append(document)
            seen.add(digest)
    return kept


def source() -> list[Document]:
    """All Python source of the mixture, near copies of held-out files dropped, in a fixed shuffled
    order."""
    documents = list(stdlib())
    for name in PACKAGES:
        n_characters = 0
        for document in package(name):
            n_characters += len(document.text)
            if n_characters > PACKAGE_CAP:
                break
            documents.append(document)
    documents.sort(key=lambda d: hashlib.sha256(d.name.encode()).digest())
    return without_near_copies(documents)


def mixture(
    words: Sequence[str], seed: int = 0, documents: list[Document] | None = None
) -> Iterator[Document]:
    """`bundled-mix`: the source files, with prompts between them so that PROMPT_SHARE of all
    characters are prompts.

    words: the tokenizer's single-token words, for induction. Prompts are named `prompt/N` and split
    by their text.
    """
    rng = random.Random(seed)
    n_source = n_prompts = number = 0
    for document in documents if documents is not None else source():
        yield document
        n_source += len(document.text)
        while n_prompts < n_source * PROMPT_SHARE / (1 - PROMPT_SHARE):
            text = prompts.document(rng, words)
            n_prompts += len(text)
            yield Document(f"prompt/{number}", text, text)
            number += 1
