"""The folders `training` and `apps` beside `saelab/`, whatever other folders of these names a user
has.

Their plain names are taken only where `import training` gives the folder beside this package;
elsewhere they are loaded from their place under a name of our own, so that a user's `training`
stays the user's. Inside both, imports are relative: they work under either name.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

BESIDE = Path(__file__).resolve().parents[1]
OURS = ("training", "apps")


def beside(name: str) -> ModuleType:
    """The module `training...` or `apps...` beside `saelab/`; any other name is imported as it is.

    >>> beside("training.config").Config().k
    32
    """
    top, _, rest = name.partition(".")
    if top not in OURS:
        return importlib.import_module(name)
    package = _package(top)
    return importlib.import_module(f"{package.__name__}.{rest}") if rest else package


def _package(top: str) -> ModuleType:
    private = f"_saelab_{top}"
    # Loaded once under one name: two copies of `Config` would not be equal to each other.
    if private in sys.modules:
        return sys.modules[private]
    init = BESIDE / top / "__init__.py"
    if _would_import(top) == init:
        return importlib.import_module(top)
    spec = importlib.util.spec_from_file_location(
        private, init, submodule_search_locations=[str(init.parent)]
    )
    assert spec is not None
    return _load(spec)


def _would_import(top: str) -> Path | None:
    """The file that `import top` runs, without running it; None if there is none."""
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that somebody made by hand
        return None
    return Path(spec.origin).resolve() if spec and spec.origin else None


def _load(spec: ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    # Registered before it runs, as `import` does, because its own modules look it up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def main() -> int:
    """The `saelab` command."""
    return beside("apps.cli").main()
