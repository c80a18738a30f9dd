"""The tree keeps its shape: imports point one way, importing is cheap, help is quick."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.cli import VERBS

ROOT = Path(__file__).parents[1]
# module prefix -> what it must not import, nearest prefix first
FORBIDDEN = {
    "saelab.code": ("saelab.",),
    "saelab.sparsify": ("saelab.",),
    "saelab.kernels": (
        "saelab.sae",
        "training.losses",
        "saelab.evaluation",
        "saelab.features",
        "saelab.analysis",
        "saelab.models",
    ),
    "training.losses": (
        "saelab.sae",
        "saelab.evaluation",
        "saelab.features",
        "saelab.analysis",
        "saelab.models",
    ),
    "saelab.sae": (
        "saelab.evaluation",
        "saelab.features",
        "saelab.analysis",
        "saelab.models",
        "saelab.activations",
    ),
    "saelab.models": (
        "saelab.sae",
        "saelab.activations",
        "saelab.evaluation",
        "saelab.features",
        "saelab.analysis",
    ),
    "saelab.activations": ("saelab.sae", "saelab.evaluation", "saelab.features", "saelab.analysis"),
    "saelab.evaluation": ("saelab.features", "saelab.analysis"),
    "saelab": ("training", "apps", "streamlit", "wandb"),
    "training": ("apps",),
}


def imports(path: Path) -> set[str]:
    """Every module name that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offences(module: str, imported: set[str]) -> list[str]:
    """The imports that point the wrong way."""
    rules = [
        rule
        for prefix, rule in FORBIDDEN.items()
        if module == prefix or module.startswith(prefix + ".")
    ]
    bad = {
        name
        for rule in rules
        for prefix in rule
        for name in imported
        if (name + ".").startswith(prefix.rstrip(".") + ".")
    }
    return sorted(name for name in bad if name != module and not name.startswith(module + "."))


def modules() -> list[tuple[str, Path]]:
    """Dotted name and path of every module of the three packages."""
    files = [
        p for package in ("saelab", "training", "apps") for p in (ROOT / package).rglob("*.py")
    ]
    return [
        (".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), p)
        for p in files
    ]


def test_imports_point_one_way():
    found = {name: offences(name, imports(path)) for name, path in modules() if name != "saelab"}
    assert not {name: bad for name, bad in found.items() if bad}


def test_an_import_that_points_backwards_is_caught():
    assert offences("saelab.sae", {"torch", "saelab.evaluation.report"})
    assert offences("training.loop", {"apps.cli"})
    assert not offences("saelab.evaluation.report", {"saelab.sae", "numpy"})


def test_importing_saelab_loads_torch_and_nothing_heavier():
    heavy = (
        "transformers transformer_lens streamlit wandb numba triton datasets sklearn plotly pandas"
    )
    code = f"import sys, saelab; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_answers_at_once_and_loads_no_torch():
    code = (
        "import sys; from apps.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "capture" in done.stdout
    assert time.perf_counter() - started < 1.5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_the_common_options(verb):
    code = f"from apps.cli import main; main(['{verb}', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout and "--seed" in done.stdout


def test_no_file_of_the_packages_is_long_and_no_function_either():
    for name, path in modules():
        tree = ast.parse(path.read_text())
        roomy = name.startswith("saelab.kernels") or name == "training.loop"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < (120 if roomy else 60), f"{name}.{node.name}"
