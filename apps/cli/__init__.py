"""The `saelab` command: one module per verb, imported only when its verb is typed."""

import contextlib
import importlib
import io
import keyword
import re
import signal
import sys
import threading
from collections.abc import Iterator

from saelab import ranks

from .home import give_home
from .memory import keep_freed_memory
from .progress import telling

VERBS = {
    "demo": "run the whole main job on the bundled model and open the browser",
    "capture": "run a model over text and write an activation cache",
    "train": "train an SAE on a cache",
    "eval": "measure an SAE: reconstruction, sparsity, effect on the model's loss",
    "index": "build the feature index the browser reads",
    "circuits": "find the heads that carry out a task, and compare with the truth",
    "supervise": "compare SAEs with supervised dictionaries on a task",
    "dark-matter": "split what SAEs miss into linear and nonlinear error",
    "import": "take a published SAE over into a run",
    "export": "write SAEs as other tools read them",
    "info": "say what a folder or file is, and whether it is whole",
    "browse": "open the feature browser",
    "reproduce": "measure a paper's claims and say which hold",
    "bench": "time a training step on this machine",
}


LONG = 1000  # characters of a message
NUMBERS = {
    "N": "whole number such as 2000000, 500k or 2M",
    "SIZE": "size such as 500MB, 2GB or 1.5TB",
    "FLOAT": "number",
}  # by tyro's word for them


def usage() -> str:
    """The text of `saelab --help`."""
    verbs = "\n".join(f"  {verb:12} {help_}" for verb, help_ in VERBS.items())
    return (
        f"usage: saelab VERB [options]\n\n{verbs}\n\n`saelab VERB --help` lists a verb's options."
    )


def _sentence(box: str) -> str:
    """tyro's boxed complaint as one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    frame = (
        r"^[│|+╭╰]|[│|+╮╯]$|─+|-{4,}"  # drawn in ASCII where the terminal's encoding has no other
    )
    lines = [re.sub(frame, " ", line.strip()).strip() for line in plain]
    text = " ".join(line for line in lines if line and line != "Parsing error")
    text = re.sub(
        r"^(Value error|Missing argument|Unrecognized options) (?=[A-Z])", "", text
    )  # the box's title
    text = re.sub(
        r" Got errors: .*?(?= Argument helptext| For full|$)"
        r"| Argument helptext: .*?(?= For full|$)",
        "",
        text,
    )
    text = re.sub(
        r"no type matching \{None\}\|(\w+) could be instantiated from \[(.*?)\]",
        lambda match: f"{match[2]} is no {NUMBERS.get(match[1], match[1])}",
        text,
    )
    return re.sub(r"\.? For full helptext, (?:run|see) (.*)$", r"; see \1", text)


def parse(verb: str, argv: list[str]):
    """The verb's module and its filled-in arguments. Raises UsageError for what does not parse, and
    for numbers that cannot be meant."""
    import tyro

    from saelab.errors import UsageError
    from saelab.ranges import outside

    from .common import registry, unwritable

    module = importlib.import_module(f".{module_of(verb)}", __name__)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            default = module.default(argv) if hasattr(module, "default") else None
            args = tyro.cli(
                module.Args,
                args=argv,
                prog=f"saelab {verb}",
                description=module.__doc__,
                default=default,
                registry=registry,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_sentence(complaint.getvalue())) from None
    for problem in (*outside(args), *unwritable(args)):
        raise UsageError(problem)
    return module, args


def module_of(verb: str) -> str:
    """The name of a verb's module."""
    return f"{verb}_" if keyword.iskeyword(verb) else verb.replace("-", "_")


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
    if argv[0] not in VERBS:
        print(f"saelab: no verb {argv[0]!r}; there are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    args = None
    try:
        with _terminated_as_interrupted():
            module, args = parse(argv[0], argv[1:])
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
