"""The `saelab` command: one module per verb, imported only when its verb is typed."""

import contextlib
import errno
import io
import signal
import sys
import threading
from collections.abc import Iterator

from saelab import ranks

from .home import give_home
from .memory import keep_freed_memory
from .progress import telling
from .verbs import VERBS, module_of, unknown, usage

__all__ = ["VERBS", "main", "module_of", "usage"]
LONG = 1000  # characters of a message
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


def _named(error: Exception) -> Exception:
    """A name that the disk does not take is the command line's fault; other errors as they are."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return error
    from saelab.errors import UsageError

    name = _short(str(error.filename))
    return UsageError(f"no name on this disk is as long as {name}: give a shorter --out or path")


def _short(text: str) -> str:
    """The text without its middle, where a file has put a page into it."""
    return text if len(text) <= LONG else f"{text[: LONG // 2]} ... {text[-LONG // 4 :]}"


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Within the block SIGTERM, as schedulers send it, ends a verb as Ctrl-C does."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0 success, 2 wrong command line, 1 failure under way,
    130 Ctrl-C or SIGTERM."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from saelab import __version__

        print(__version__)
        return 0
    if argv[0] not in VERBS and not argv[0].startswith(COMPLETION):
        print(f"saelab: {unknown(argv[0])}", file=sys.stderr)
        return 2
    args = None
    try:
        with _terminated_as_interrupted():
            # Not before it is needed: `saelab --help` answers at once.
            from . import parsing

            if argv[0].startswith(COMPLETION):
                return parsing.complete(argv)
            module, args = parsing.parse(argv[0], argv[1:])
            keep_freed_memory()
            give_home()
            with telling(argv[0]):
                return module.run(args) or 0
    except KeyboardInterrupt as interrupt:
        if not ranks.rank():
            print(f"saelab {argv[0]}: interrupted {interrupt}".rstrip(), file=sys.stderr)
        return 130
    except ranks.Told:
        return 1
    except Exception as error:
        if debug:
            raise
        from saelab.errors import UsageError

        from .exhausted import told

        error = _named(error)
        if exhausted := told(error, args):
            print(f"saelab {argv[0]}: {exhausted}", file=sys.stderr)
            return 1
        text = _short(" ".join(str(error).split())) or type(error).__name__
        kind = (
            ""
            if isinstance(error, (UsageError, RuntimeError, OSError))
            else f"{type(error).__name__}: "
        )
        kind = f"rank {ranks.rank()}: {kind}" if ranks.rank() else kind
        print(f"saelab {argv[0]}: {kind}{text}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
