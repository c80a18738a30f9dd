"""The tree keeps its shape: imports point one way, importing is cheap, help is quick, files and
functions are short."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.arrows import (
    ARROWS,
    DOOR,
    EXCEPTIONS,
    between_folders,
    circle,
    differing,
    excepted,
    graph,
    imports,
    modules,
    upward,
    written,
)
from tests.conftest import ROOT

LINES, TEST_LINES = 250, 310
FUNCTION, ROOMY_FUNCTION = 60, 120  # lines; the kernels and the training loop have more room
LONG_FILES: dict[str, str] = {}  # path: why it is longer


def test_every_arrow_between_folders_is_one_of_the_list():
    assert differing(between_folders(graph()), written(ARROWS)) == ""


def test_no_arrow_of_the_list_points_up():
    assert upward(written(ARROWS)) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circle({name: others - DOOR for name, others in excepted(graph()).items()}) == []


def test_the_exceptions_exist():
    tree = graph()
    assert all(there in tree[name] for name, there in EXCEPTIONS)


KNOWN = {"saelab", "saelab.sae", "saelab.door", "training.loop", "training.config", "apps.cli"}


@pytest.mark.parametrize(
    "line",
    [
        "import training.loop",
        "from training import loop",
        "from training.loop import train",
        "from .loop import train",
        "from . import loop",
        "def f():\n    from training.loop import train",
        "loop = beside('training.loop')",
    ],
)
def test_an_import_is_seen_however_it_is_written(line: str):
    assert "training.loop" in imports(line, "training.config", KNOWN)


def test_an_import_through_the_door_is_seen():
    assert "training.config" in imports("import saelab\nsaelab.Config(1)", "apps.cli", KNOWN)


def test_an_arrow_that_is_not_in_the_list_is_caught():
    found = between_folders({"saelab.sae": {"apps.cli"}, "apps.cli.eval": {"saelab.sae"}})
    assert differing(found, {"saelab.sae": set(), "apps.cli": {"saelab.sae"}}) == (
        "saelab.sae: apps.cli"
    )
    assert differing({}, {"a": {"b"}}) == "a: "  # nor may the list allow what nobody needs


def test_an_arrow_up_and_a_circle_are_caught():
    assert upward(written("saelab.sae: apps.cli\napps.cli: saelab.sae")) == [
        "saelab.sae -> apps.cli"
    ]
    assert circle({"training.config": {"training.checks"}, "training.checks": {"training.config"}})
    assert not circle({"training.checks": {"training.config"}})


# --- importing is cheap, help is quick -----------------------------------------------------------


RUNS = {"run_with_hooks", "run_with_cache", "add_hook", "register_forward_hook",
        "register_forward_pre_hook"}  # fmt: skip


def calls_that_run(source: str) -> set[str]:
    """Which ways to run a model with hooks a file calls."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {call.attr for call in calls if isinstance(call, ast.Attribute)} & RUNS


def test_models_are_run_in_one_place():
    elsewhere = {
        name: calls_that_run(path.read_text())
        for name, path in modules().items()
        if not name.startswith("saelab.models.")
    }
    assert {name: calls for name, calls in elsewhere.items() if calls} == {}
    assert calls_that_run("model.run_with_hooks(tokens, fwd_hooks=[])") == {"run_with_hooks"}


def test_importing_saelab_loads_torch_and_nothing_heavier():
    heavy = (
        "transformers transformer_lens streamlit wandb numba triton datasets sklearn plotly pandas"
    )
    code = f"import sys, saelab; print([m for m in {heavy.split()} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_help_answers_at_once_and_loads_no_torch():
    code = (
        "import sys; from apps.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    )
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "capture" in answer.stdout
    assert time.perf_counter() - started < 1.5


def verbs() -> list[str]:
    from apps.cli import VERBS

    return list(VERBS)


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_help_with_the_common_options(verb: str):
    code = f"from apps.cli import main; main(['{verb}', '--help'])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    assert "--json" in answer.stdout and "--seed" in answer.stdout


# --- files, functions and lines are short --------------------------------------------------------


def long_functions(source: str, most: int) -> list[str]:
    """The functions of more lines than `most`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno >= most]


def wide_lines(*arguments: str, text: str = "") -> list[str]:
    """Where ruff finds lines over its limit: in the whole repository, notebooks too, or in a
    text."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--select",
        "E501",
        "--output-format",
        "concise",
        *arguments,
    ]
    answer = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT)
    assert not answer.stderr, answer.stderr
    return [line for line in answer.stdout.splitlines() if "E501" in line]


def ours(pattern: str) -> list[Path]:
    """The files of the repository that git knows, by a pattern."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    names = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


def long_files(lengths: dict[str, int]) -> set[str]:
    """The files of more lines than they may have; tests, which are read one by one, may have
    more."""
    return {
        name
        for name, n_lines in lengths.items()
        if n_lines > (TEST_LINES if name.startswith("tests/") else LINES)
    }


def test_no_file_is_long_but_those_that_say_why():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in ours("*.py")}
    assert long_files(lengths) == set(LONG_FILES)


def test_a_long_file_is_caught():
    lengths = {"saelab/a.py": 251, "saelab/b.py": 250, "tests/c.py": 310, "tests/d.py": 311}
    assert long_files(lengths) == {"saelab/a.py", "tests/d.py"}


def test_no_function_is_long():
    for name, path in modules().items():
        roomy = name.startswith("saelab.kernels") or name == "training.loop"
        most = ROOMY_FUNCTION if roomy else FUNCTION
        assert not long_functions(path.read_text(), most), name


def test_no_line_is_wide():
    assert wide_lines(".") == []


def test_a_long_function_and_a_wide_line_are_caught():
    body = "def f():\n" + "    x = 1\n" * 60
    assert long_functions(body, FUNCTION) == ["f"]
    assert long_functions(body[: -len("    x = 1\n")], FUNCTION) == []
    assert len(wide_lines("-", text="a = 1\n" + "b = " + "1 + " * 24 + "1\n")) == 1
    assert wide_lines("-", text="a" * 96 + " = 1\n") == []
