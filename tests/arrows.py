"""Which folder may import which: a written list that `test_structure` compares with the tree.

From the ground up: an arrow points to a line above its own. A file of `saelab/` itself counts as a
folder. The door (`saelab/__init__.py`, `door.py`, `registration.py`, `__main__.py`) stands
outside: it looks everything up when asked.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from saelab import HOMES
from tests.conftest import ROOT

PACKAGES = ("saelab", "training", "apps")
DOOR = {"saelab", "saelab.door", "saelab.registration", "saelab.__main__"}

ARROWS = """
saelab.analysis:
saelab.budgets:
saelab.code:
saelab.documents:
saelab.errors:
saelab.idle:
saelab.joint:
saelab.ranges:
saelab.spelling:
saelab.statistics:
saelab.origin: saelab.ranges
saelab.scenes: saelab.errors
saelab.sparsify: saelab.errors saelab.ranges
saelab.bundled: saelab.documents
saelab.digests: saelab.errors
saelab.locks: saelab.errors
saelab.ranks: saelab.errors
saelab.device: saelab.errors saelab.ranks
saelab.files: saelab.digests saelab.errors saelab.locks
saelab.looking: saelab.digests saelab.errors saelab.files
saelab.jump: saelab.code
saelab.layer_codes: saelab.code saelab.sparsify
saelab.matching: saelab.statistics
saelab.kernels: saelab.code saelab.errors saelab.files saelab.sparsify
saelab.models: saelab.device saelab.digests saelab.errors saelab.files saelab.joint saelab.origin
saelab.textfiles: saelab.documents saelab.errors
saelab.tasks: saelab.bundled saelab.errors saelab.models saelab.textfiles
saelab.pictures: saelab.errors saelab.models saelab.scenes
saelab.activations: saelab.bundled saelab.digests saelab.documents saelab.errors saelab.files
    saelab.joint saelab.locks saelab.models saelab.origin saelab.pictures saelab.ranges saelab.ranks
    saelab.textfiles
saelab.analysis.frozen: saelab.errors saelab.models
saelab.initial:
saelab.dictionaries: saelab.code saelab.errors saelab.initial saelab.kernels saelab.sparsify
    saelab.statistics
saelab.token_norm: saelab.errors
saelab.calibration: saelab.budgets saelab.errors saelab.kernels saelab.sparsify
saelab.sae: saelab.calibration saelab.code saelab.dictionaries saelab.errors saelab.initial
    saelab.jump saelab.kernels saelab.origin saelab.sparsify saelab.token_norm
saelab.cross_layer: saelab.calibration saelab.code saelab.errors saelab.initial saelab.kernels
    saelab.layer_codes saelab.origin saelab.sae saelab.sparsify
saelab.coder: saelab.cross_layer saelab.sae
saelab.one_layer: saelab.cross_layer saelab.joint saelab.origin saelab.sae
saelab.scaling: saelab.coder
saelab.analysis.parts: saelab.analysis.frozen saelab.code saelab.coder saelab.cross_layer
    saelab.dictionaries saelab.errors saelab.joint saelab.models saelab.one_layer saelab.origin
    saelab.sae saelab.token_norm
saelab.evaluation: saelab.activations saelab.bundled saelab.code saelab.coder saelab.cross_layer
    saelab.dictionaries saelab.documents saelab.errors saelab.joint saelab.kernels saelab.matching
    saelab.models saelab.origin saelab.sae saelab.scaling saelab.scenes saelab.sparsify
    saelab.statistics saelab.tasks saelab.token_norm
saelab.explaining: saelab.activations saelab.digests saelab.errors saelab.files saelab.sae
    saelab.spelling saelab.statistics
saelab.features: saelab.activations saelab.code saelab.digests saelab.errors saelab.files
    saelab.joint saelab.kernels saelab.matching saelab.origin saelab.sae saelab.sparsify
    saelab.spelling
saelab.formats: saelab.activations saelab.coder saelab.cross_layer saelab.dictionaries
    saelab.digests saelab.errors saelab.features saelab.files saelab.joint saelab.models
    saelab.origin saelab.sae saelab.sparsify saelab.token_norm
saelab.analysis.attention: saelab.activations saelab.analysis.frozen saelab.analysis.parts
    saelab.code saelab.dictionaries saelab.errors saelab.features saelab.kernels saelab.models
    saelab.sae saelab.statistics saelab.token_norm
saelab.analysis.compression: saelab.activations saelab.code saelab.dictionaries saelab.errors
    saelab.evaluation saelab.files saelab.kernels saelab.models saelab.statistics
saelab.analysis.comparison: saelab.activations saelab.code saelab.errors saelab.evaluation
    saelab.initial saelab.matching saelab.sae saelab.statistics
saelab.analysis.dark_matter: saelab.activations saelab.coder saelab.dictionaries saelab.digests
    saelab.errors saelab.evaluation saelab.files saelab.kernels saelab.models saelab.sae
    saelab.statistics saelab.token_norm
saelab.analysis.prompts: saelab.activations saelab.analysis.dark_matter saelab.analysis.frozen
    saelab.code saelab.errors saelab.kernels saelab.models saelab.sae saelab.spelling
    saelab.statistics saelab.tasks saelab.token_norm
saelab.analysis.steering: saelab.activations saelab.analysis.frozen saelab.analysis.parts
    saelab.errors saelab.evaluation saelab.models saelab.sae saelab.statistics saelab.tasks
    saelab.token_norm
saelab.runs: saelab.files saelab.formats saelab.origin
saelab.outdated: saelab.explaining saelab.features saelab.origin saelab.runs
saelab.foreign: saelab.digests saelab.errors saelab.formats saelab.looking saelab.models saelab.runs
saelab.inspection: saelab.activations saelab.digests saelab.errors saelab.explaining saelab.features
    saelab.files saelab.foreign saelab.formats saelab.looking saelab.origin saelab.outdated
    saelab.runs
saelab.opening: saelab.activations saelab.device saelab.digests saelab.errors saelab.files
    saelab.formats saelab.joint saelab.models saelab.origin saelab.runs
saelab.indexing: saelab.activations saelab.coder saelab.cross_layer saelab.errors saelab.features
    saelab.one_layer saelab.opening saelab.origin saelab.sae
saelab.analysis.circuits: saelab.activations saelab.analysis.attention saelab.analysis.frozen
    saelab.analysis.parts saelab.code saelab.coder saelab.errors saelab.evaluation saelab.joint
    saelab.kernels saelab.models saelab.sae saelab.scaling saelab.sparsify saelab.statistics
    saelab.tasks
saelab.prompting: saelab.analysis.dark_matter saelab.analysis.prompts saelab.analysis.steering
    saelab.errors saelab.features saelab.models saelab.opening saelab.runs
saelab.folders: saelab.runs
saelab.sets: saelab.errors saelab.folders saelab.models saelab.opening saelab.runs
training.bundled: saelab.activations saelab.bundled saelab.evaluation saelab.files saelab.models
    saelab.pictures saelab.scenes saelab.tasks
training: saelab.activations saelab.budgets saelab.calibration saelab.code saelab.coder
    saelab.cross_layer saelab.device saelab.dictionaries saelab.digests saelab.errors saelab.files
    saelab.joint saelab.jump saelab.kernels saelab.layer_codes saelab.locks saelab.models
    saelab.origin saelab.ranges saelab.ranks saelab.runs saelab.sae saelab.scaling saelab.sparsify
    saelab.token_norm
training.recipes: saelab.errors training
training.reproduce: saelab.activations saelab.analysis.circuits saelab.analysis.compression
    saelab.analysis.dark_matter saelab.dictionaries saelab.errors saelab.evaluation saelab.files
    saelab.models saelab.runs saelab.sae saelab.sparsify saelab.statistics saelab.tasks training
    training.recipes
apps:
apps.browser: saelab.analysis.attention saelab.analysis.prompts saelab.analysis.steering
    saelab.digests saelab.errors saelab.evaluation saelab.explaining saelab.features saelab.files
    saelab.folders saelab.joint saelab.models saelab.opening saelab.origin saelab.outdated
    saelab.prompting saelab.runs saelab.sparsify saelab.spelling saelab.statistics
apps.notebook: apps.browser saelab.activations saelab.analysis.attention saelab.analysis.circuits
    saelab.analysis.prompts saelab.analysis.steering saelab.errors saelab.evaluation saelab.features
    saelab.files saelab.indexing saelab.matching saelab.opening saelab.prompting saelab.runs
    saelab.sae saelab.sets saelab.tasks training
apps.cli: apps.browser saelab.activations saelab.analysis.attention saelab.analysis.circuits
    saelab.analysis.comparison saelab.analysis.compression saelab.analysis.dark_matter
    saelab.analysis.parts saelab.analysis.prompts saelab.analysis.steering saelab.coder
    saelab.cross_layer saelab.device saelab.digests saelab.errors saelab.evaluation
    saelab.explaining saelab.features saelab.files saelab.folders saelab.formats saelab.indexing
    saelab.inspection saelab.joint saelab.kernels saelab.locks saelab.matching saelab.models
    saelab.opening saelab.origin saelab.outdated saelab.prompting saelab.ranges saelab.ranks
    saelab.runs saelab.sae saelab.sets saelab.spelling saelab.statistics saelab.tasks
    saelab.textfiles training training.recipes training.reproduce
"""

# (module, module): the imports that point up, each inside a function.
EXCEPTIONS = {("saelab.sae", "saelab.formats"), ("saelab.cross_layer", "saelab.formats")}


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {dotted(path.relative_to(ROOT)): path for path in files}


def dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(source: str, name: str, known: set[str], package: bool = False) -> set[str]:
    """The modules of ours that a module imports, wherever in the file, also through the door."""
    wanted = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = _home(node, name, package)
            wanted |= {_member(home, alias.name, known) for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "beside":
            wanted |= {word.value for word in node.args if isinstance(word, ast.Constant)}
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "saelab":
            wanted |= {_member("saelab", node.attr, known)}
    return (wanted & known) - {name}


def _home(node: ast.ImportFrom, name: str, package: bool) -> str:
    """The module that `from home import ...` names, dots resolved."""
    if not node.level:
        return node.module or ""
    here = name.split(".") if package else name.split(".")[:-1]
    above = here[: len(here) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def _member(home: str, member: str, known: set[str]) -> str:
    """What `from home import member` imports: a submodule, a public name's own module, or home."""
    if home == "saelab" and member in HOMES:
        return HOMES[member][0]
    return f"{home}.{member}" if f"{home}.{member}" in known else home


def folder(module: str) -> str:
    """The folder a module stands in: two levels of saelab and apps (three of its analyses), one of
    training and its subfolders."""
    parts = module.split(".")
    if module.startswith("saelab.analysis."):
        return ".".join(parts[:3])
    if parts[0] == "training":
        inside = (ROOT / "/".join(parts[:2])).is_dir()
        return ".".join(parts[:2]) if inside else "training"
    return ".".join(parts[:2])


def graph() -> dict[str, set[str]]:
    """What every module imports."""
    every = modules()
    known = set(every)
    return {
        name: imports(path.read_text(), name, known, path.name == "__init__.py")
        for name, path in every.items()
        if name not in DOOR
    }


def between_folders(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows between folders, the excepted imports and the door left out."""
    arrows: dict[str, set[str]] = {}
    for name, imported in modules.items():
        there = {folder(other) for other in imported - DOOR if (name, other) not in EXCEPTIONS}
        arrows.setdefault(folder(name), set()).update(there - {folder(name)})
    return arrows


def written(text: str) -> dict[str, set[str]]:
    """The written list as folders and what they may import, in its order."""
    lines = [line.partition(":") for line in text.replace("\n    ", " ").strip().splitlines()]
    return {name: set(others.split()) for name, _, others in lines}


def upward(allowed: dict[str, set[str]]) -> list[str]:
    """The arrows of the list that do not point to a line above their own."""
    above: set[str] = set()
    bad = []
    for name, others in allowed.items():
        bad += [f"{name} -> {other}" for other in sorted(others - above)]
        above.add(name)
    return bad


def circle(modules: dict[str, set[str]]) -> list[str]:
    """A circle of modules, empty if there is none."""
    try:
        TopologicalSorter(modules).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def differing(found: dict[str, set[str]], allowed: dict[str, set[str]]) -> str:
    """The lines of the written list that the tree has otherwise, as they would be right."""
    names = [name for name in {**allowed, **found} if allowed.get(name) != found.get(name)]
    return "\n".join(f"{name}: {' '.join(sorted(found.get(name, ())))}" for name in names)


def excepted(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """The modules' imports without the exceptions."""
    return {
        name: {other for other in others if (name, other) not in EXCEPTIONS}
        for name, others in modules.items()
    }
