"""Opening a text file, compressed or not, and saying what is wrong with a damaged one."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar, cast

from saelab.errors import UsageError

Value = TypeVar("Value")
# What a file that is not what its name says, or was cut or damaged, makes its readers raise:
# pyarrow's and datasets' own errors are among them.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    csv.Error,
    RecursionError,
    KeyError,
    NotImplementedError,
    TypeError,
    MemoryError,
)


def _zstandard(path: Path) -> BinaryIO:
    # pyarrow notices a stream that was cut, which the package zstandard does not.
    import pyarrow

    return cast(BinaryIO, pyarrow.input_stream(str(path), compression="zstd"))


def _bzip2(path: Path) -> BinaryIO:
    return cast(BinaryIO, bz2.open(path))


def _xz(path: Path) -> BinaryIO:
    return cast(BinaryIO, lzma.open(path))


def _gzip(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path))


MAGIC = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\xfd7zXZ\x00": _xz,
    b"\x5d\x00\x00": _xz,  # the older .lzma
    b"\x28\xb5\x2f\xfd": _zstandard,
}
PACKED = {b"PK\x03\x04": "a zip archive", b"%PDF-": "a PDF"}


class Damaged(ValueError):
    """What is wrong with a file, to be read behind its name."""


def binary(path: Path) -> BinaryIO:
    """The file's bytes, decompressed; the compression is told by the first bytes, not the name.
    Raises Damaged for an archive."""
    with path.open("rb") as file:
        head = file.read(512)
    for magic, what in PACKED.items():
        if head.startswith(magic):
            raise Damaged(f"is {what}: unpack it to text")
    for magic, opener in MAGIC.items():
        # Text may begin with BZh; of bzip2 three bytes are followed by a digit and these.
        if head.startswith(magic) and (opener is not _bzip2 or head[4:10] == b"1AY&SY"):
            return opener(path)
    return path.open("rb")


def text(path: Path, newline: str = "\n") -> TextIO:
    """The file's text, decompressed, without a byte order mark. newline: where lines end, as for
    `open`; line ends stay as they are."""
    return io.TextIOWrapper(binary(path), "utf-8-sig", newline=newline)


def guarded(path: Path, values: Iterator[Value]) -> Iterator[Value]:
    """The values that are read from a file. Raises UsageError naming the file, and the record
    behind the last good one, for whatever a damaged file makes its reader raise."""
    number = 0
    try:
        for value in values:
            yield value
            number += 1
    except Damaged as error:
        raise UsageError(f"{path} {error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {_where(path, error)}") from error
    except DAMAGE as error:
        at = f" after record {number - 1}" if number else ""
        raise UsageError(f"{path} cannot be read{at}: {_reason(error)}") from error


def _where(path: Path, error: UnicodeDecodeError) -> str:
    """The first byte of a file that is no UTF-8: the text's reader knows its place in a buffer
    alone."""
    decoder, n_read = codecs.getincrementaldecoder("utf-8")(), 0
    try:
        with binary(path) as file:
            while True:
                piece = file.read(1 << 20)
                decoder.decode(piece, final=not piece)
                n_read += len(piece)
                if not piece:
                    return error.reason
    except UnicodeDecodeError as bad:
        n_before = n_read - len(decoder.getstate()[0])  # what the decoder kept is read again
        return f"byte {bad.object[bad.start]:#04x} at offset {n_before + bad.start}"
    except DAMAGE as damage:  # compressed bytes that were changed may be no text before they end
        return _reason(damage)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    return " ".join(str(error).split()) or type(error).__name__
