"""A verb's command line: read by tyro, refused in one sentence, and completed by shells."""

import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import Positional, Suppress, UseAppendAction, arg
from tyro.extras import subcommand_cli_from_dict

from saelab.errors import UsageError
from saelab.ranges import outside

from .common import registry, unwritable
from .verbs import VERBS, module_of, nearest

NUMBERS = {
    "N": "whole number such as 2000000, 500k or 2M",
    "SIZE": "size such as 500MB, 2GB or 1.5TB",
    "FLOAT": "number",
}  # by tyro's word for them
COMMANDS = ("saelab ", "torchrun ")
SHELLS = ("bash", "zsh", "fish")


def parse(verb: str, argv: list[str]) -> tuple[ModuleType, Any]:
    """The verb's module and its filled-in arguments. Raises UsageError for what does not parse, and
    for numbers that cannot be meant."""
    module = importlib.import_module(f".{module_of(verb)}", __package__)
    complaint = io.StringIO()
    shape = saying_defaults_once(module.Args)
    try:
        with contextlib.redirect_stderr(complaint):
            default = module.default(argv) if hasattr(module, "default") else None
            args = tyro.cli(
                shape,
                args=argv,
                prog=f"saelab {verb}",
                description=described(module.__doc__ or ""),
                default=default and shape(**vars(default)),
                registry=registry,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_sentence(complaint.getvalue(), verb, module.Args)) from None
    for problem in (*outside(args), *unwritable(args)):
        raise UsageError(problem)
    return module, args


def complete(argv: list[str]) -> int:
    """Print or write the completion script of the whole command, as tyro's options say:
    `--tyro-print-completion bash`, `--tyro-write-completion zsh PATH`."""
    if argv[1:2] not in ([shell] for shell in SHELLS):
        raise UsageError(f"name the shell, one of {', '.join(SHELLS)}")
    modules = {verb: importlib.import_module(f".{module_of(verb)}", __package__) for verb in VERBS}
    verbs = {verb: module.Args for verb, module in modules.items()}
    with contextlib.suppress(SystemExit):
        subcommand_cli_from_dict(verbs, prog="saelab", args=argv, registry=registry)
    return 0


def described(docstring: str) -> str:
    """A module's docstring with its examples on lines of their own, as tyro keeps them."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip())
    return "\n\n".join(map(_kept, paragraphs))


def _kept(paragraph: str) -> str:
    lines = [line.strip() for line in paragraph.splitlines()]
    examples = all(line.startswith(COMMANDS) for line in lines)
    return "\n".join(f"    {line}" for line in lines) if examples else " ".join(lines)


def saying_defaults_once(shape: type) -> Any:
    """The dataclass with its defaults named in the help, but for those that are None or empty:
    what they stand for is said by the field's own words."""
    hints = get_type_hints(shape, include_extras=True)
    said = {
        one.name: _hinted(hints[one.name])
        for one in fields(shape)
        if one.default is not MISSING and UseAppendAction not in get_args(hints[one.name])
    }
    body = {"__annotations__": said, "__module__": shape.__module__, "__doc__": shape.__doc__}
    return dataclass(frozen=True)(type(shape.__name__, (shape,), body))


def _hinted(hint: Any) -> Any:
    # Before the field's own marks, which so count for more.
    bare, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    return Annotated[(bare, arg(help_behavior_hint=_said), *marks)]  # type: ignore[misc]


def _said(default: str) -> str:
    return "" if default in ("None", "", "''") else f"(default: {default})"


def _sentence(box: str, verb: str, shape: type) -> str:
    """tyro's boxed complaint as one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    # Drawn in ASCII where the terminal's encoding has no other.
    frame = r"^[│|+╭╰]|[│|+╮╯]$|─+|-{4,}"
    lines = [re.sub(frame, " ", line.strip()).strip() for line in plain]
    text = " ".join(line for line in lines if line and line != "Parsing error")
    title = r"^(Value error|Missing argument|Unrecognized options) (?=[A-Z])"
    text = re.sub(title, "", text)
    text = text.removeprefix("Invalid choice ")  # which the sentence says itself
    if text.startswith("Unrecognized options: "):
        return _unrecognized(text.removeprefix("Unrecognized options: "), verb, shape)
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


def _unrecognized(words: str, verb: str, shape: type) -> str:
    """What is wrong with the first option that the verb lacks, and what may have been meant; or
    with the first word that it has no place for."""
    listed = re.split(r" (?:Perhaps|Arguments|For full) |; see ", words)[0].split(", ")
    lacking = [one.partition("=")[0] for one in listed if one.startswith("--")]
    if not lacking:
        return f"Unrecognized options: {listed[0]}; see saelab {verb} --help"
    prefix = "--no-" if lacking[0].startswith("--no-") else "--"
    near = nearest(lacking[0].removeprefix(prefix), options(shape))
    meant = f": did you mean {prefix}{near}?" if near else ";"
    return f"Unrecognized options: {lacking[0]}{meant} see saelab {verb} --help"


def options(shape: type) -> Iterator[str]:
    """The options of a verb as they are typed, without the dashes before them."""
    hints = get_type_hints(shape, include_extras=True)
    for one in fields(shape):
        marks = get_args(hints[one.name])
        if Positional not in marks and Suppress not in marks:
            yield one.name.replace("_", "-")
