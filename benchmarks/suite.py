"""What `saelab eval --suite` costs and says on a run: CPU time with and without controls, and every
row. Works on a copy of the run, as reports are written into it.

    python benchmarks/suite.py runs/demo --out suite.json
    python benchmarks/suite.py runs/demo --controls --out suite_controls.json
    python benchmarks/suite.py runs/demo --only absorption --out absorption.json
"""

import argparse
import contextlib
import io
import json
import platform
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from apps.cli import main as saelab
from saelab.files import write_json

TOKENS = {False: 50_000, True: 10_000}  # of losses, without and with controls


def measure(
    run: Path, cache: Path | None, labels: Path | None, *, part: str, controls: bool
) -> dict:
    """The suite, or its absorption, on a copy of the run."""
    with TemporaryDirectory() as place:
        copy = shutil.copytree(run, Path(place) / run.name)
        words = ["eval", str(copy), f"--{part}", "--json", "--tokens", str(TOKENS[controls])]
        words += ["--cache", str(cache)] if cache else []
        words += ["--labels", str(labels)] if labels else []
        words += ["--controls"] if controls else []
        printed, before, started = io.StringIO(), time.process_time(), time.perf_counter()
        with contextlib.redirect_stdout(printed):
            code = saelab(words)
        cpu, wall = time.process_time() - before, time.perf_counter() - started
    if code:
        raise SystemExit(code)
    report = json.loads(printed.getvalue())
    return {
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "part": part,
        "controls": controls,
        "tokens_of_losses": report["tokens"],
        "n_features": report["n_features"],
        "suite": report["suite"],
        "separation": report.get("separation", []),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--only", default="suite", choices=["suite", "absorption"], dest="part")
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--machine", default=platform.processor() or platform.machine())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = measure(args.run, args.cache, args.labels, part=args.part, controls=args.controls)
    result |= {"machine": args.machine, "threads": torch.get_num_threads(), "dtype": "float32"}
    print(f"{result['cpu_seconds']} s of CPU time, {len(result['suite']['rows'])} rows")
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
