"""`python -m benchmarks.trained PACKAGE`: train with a package the job of each folder that a line
of the input names; a line of the output says that it is done."""

import sys
from importlib import import_module
from pathlib import Path

from .job import run

package = import_module(f"{__package__}.{sys.argv[1]}")
for line in sys.stdin:
    run(package, Path(line.strip()))
    print("done", flush=True)
