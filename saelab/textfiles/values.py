"""Values of a JSON file, whichever way they stand in it: an array, one a line, one after the other.

The whole of such a file may be far larger than memory, so that it is read through a window that
holds one value.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from saelab.textfiles.opening import Damaged

WINDOW = 1 << 16  # characters read at once
BLANKS = re.compile(r"[ \t\r\n]*")
# A value that is cut off fails at its end, or where its last string begins; any other fault is one.
ENDING = 16
CUT = "Unterminated string"


def values(file: TextIO) -> Iterator[Any]:
    """The elements of an array, or the values of a file that holds one after the other. Raises
    Damaged saying in which line the first bad one begins.

    >>> import io
    >>> list(values(io.StringIO('{"a": 1}\\n{"a": 2}')))
    [{'a': 1}, {'a': 2}]
    """
    window = _Window(file)
    if window.next() != "[":
        while window.next():
            yield window.value()
        return
    window.at += 1
    ends = window.next() == "]"
    window.at += ends
    while not ends:
        yield window.value()
        after = window.next()
        if after not in ("]", ","):
            found = repr(after) if after else "the end of the file"
            raise window.wrong(f"{found} stands where a comma or ] is due")
        ends = after == "]"
        window.at += 1
    if window.next():
        raise window.wrong("more stands behind the array's end")


class _Window:
    """The part of a file that is being read."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at = file, "", 0
        self.n_lines = 0  # before the window
        self.decode = json.JSONDecoder().raw_decode

    def next(self) -> str:
        """The next character that is not blank, not passed over; "" at the file's end."""
        while True:
            self.at = BLANKS.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def more(self) -> bool:
        """Drop what was read and read on, as much again as is left; whether there was any."""
        self.n_lines += self.text.count("\n", 0, self.at)
        rest = self.text[self.at :]
        piece = self.file.read(max(WINDOW, len(rest)))
        self.text, self.at = rest + piece, 0
        return bool(piece)

    def value(self) -> Any:
        """The value that begins here, blanks before it passed over."""
        self.next()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith(CUT) or error.pos > len(self.text) - ENDING
                if not (cut and self.more()):
                    raise self.wrong(error.msg) from None
            except (RecursionError, ValueError) as error:  # too deep, or a number too long
                deep = isinstance(error, RecursionError)
                raise self.wrong("nested too deeply" if deep else str(error)) from None
            else:
                # A number that ends near the window's end may go on behind it.
                left = len(self.text) - end
                if left >= ENDING or not isinstance(value, int | float) or not self.more():
                    self.at = len(self.text) - left
                    return value

    def wrong(self, why: str) -> Damaged:
        """The error for what stands here."""
        line = 1 + self.n_lines + self.text.count("\n", 0, self.at)
        return Damaged(f"line {line} is not JSON: {why}")
