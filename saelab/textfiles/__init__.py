"""Text in local files: which kind a file is, its records, and what a corpus leaves out of them."""

from saelab.textfiles.kinds import SUFFIXES, kind
from saelab.textfiles.reader import file, folder
from saelab.textfiles.skipped import Skipped

__all__ = ["SUFFIXES", "Skipped", "file", "folder", "kind"]
