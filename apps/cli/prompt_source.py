"""Which prompts a verb takes: a built-in task's, or one's own from a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from saelab.errors import UsageError

from .common import Folder

if TYPE_CHECKING:
    from saelab.tasks import Drawn
    from saelab.tasks.files import Given

Task = Annotated[str | None, arg(metavar="TASK", help_behavior_hint="")]
Prompts = Folder


def chosen(task: str | None, prompts: Path | None, default: str = "ioi") -> str | Path:
    """A built-in task's name, or a file. Raises UsageError for both at once, and for a file that is
    named as a task or is not there."""
    check(task, prompts)
    return prompts or task or default


def check(task: str | None, prompts: Path | None) -> None:
    """Raise UsageError as `chosen` does."""
    from saelab.tasks.records import SUFFIXES

    if task and prompts:
        raise UsageError(
            f"--task {task} and --prompts {prompts}: give one, a built-in task or a file of prompts"
        )
    if task and (Path(task).suffix in SUFFIXES or Path(task).is_file()):
        raise UsageError(f"--task is a built-in task's name: give a file as --prompts {task}")
    if prompts and not prompts.is_file():
        raise UsageError(f"no file {prompts}: --prompts takes a file of prompts")


def name(source: str | Path) -> str:
    """What folders and documents call them."""
    return Path(source).stem


def words(task: str | None, prompts: Path | None, model: Any, n: int, seed: int) -> "list[Drawn]":
    """The first n prompts of a file, whose answers may be missing, or held-out ones of a task."""
    from saelab.tasks import Drawn, files, tokens
    from saelab.tasks.written import written

    check(task, prompts)
    if prompts:
        return files.read_words(prompts, ()).prompts[:n]
    drawn = tokens.task(str(task), model, n=n, seed=seed, split="held-out")
    names = ("clean", "corrupted", "right", "wrong")
    texts = [[row[name] for name in names] for row in written(drawn, model.tokenizer, n)]
    return [Drawn(clean, twin, tuple(right), tuple(wrong)) for clean, twin, right, wrong in texts]


def given(
    task: str | None, prompts: Path | None, model: Any, n: int, seed: int, needs: Sequence[str]
) -> "Given":
    """The same as a task in tokens, of one length, with what is left out of a file."""
    from saelab.tasks import files, tokens

    check(task, prompts)
    if not prompts:
        drawn = tokens.task(str(task), model, n=n, seed=seed, split="held-out")
        return files.Given(drawn, {})
    found = files.given(prompts, model, needs=needs)
    return found._replace(task=found.task.part(slice(n)))
