"""What this project does on a real card, in one command of at most 8 minutes: `make gpu-check`, or
`python benchmarks/gpu_check.py --help`.

Each stage runs in a process of its own with a time limit: one that fails or hangs is reported and
the next one runs. What is known is written to benchmarks/results/gpu_<card>_<date>.json after every
stage, row by row, so that a killed check leaves what it had found. It needs torch, triton and
safetensors; a stage that needs more says what is missing. Without a card `--device cpu --tiny` runs
all of it in Triton's interpreter, which checks this script and no card.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # a bare machine has no saelab installed

HERE = "benchmarks.gpu"
RESULTS = Path(__file__).parent / "results"
WHOLE = 480.0  # seconds for all stages together
STOP = ("ceilings", "adds up in float32")  # where this is False the certificate has no ground


class Stage(NamedTuple):
    """A function of its name, in a module of its name, that yields rows; seconds it may take."""

    name: str
    seconds: float


STAGES = (
    Stage("native", 110),
    Stage("ceilings", 40),
    Stage("correct", 80),
    Stage("redone", 45),
    Stage("step", 90),
    Stage("syncs", 40),
    Stage("peers", 100),
    Stage("memory", 60),
    Stage("short_run", 45),
    Stage("verbs", 60),
)


class Outcome(NamedTuple):
    """What became of a stage."""

    state: str
    """finished, failed, or stopped"""
    seconds: float
    rows: dict[str, Any]


def run(stage: Stage, card: Any, limit: float) -> Outcome:
    """A stage in a process of its own. CUDA does not survive a fork, so with a card the process
    starts afresh."""
    start = "spawn" if card.is_cuda else "fork"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.touch()
        process = multiprocessing.get_context(start).Process(
            target=write_rows, args=(f"{HERE}.{stage.name}", stage.name, card, rows)
        )
        process.start()
        try:
            process.join(limit)
            state = "finished" if process.exitcode == 0 else "failed"
            if process.is_alive():
                state = f"stopped after {limit:.0f} s"
            elif process.exitcode and process.exitcode < 0:
                state = f"failed: ended by {signal.Signals(-process.exitcode).name}"
        finally:  # Ctrl-C too: the process has a session of its own, and does not hear it
            if process.is_alive():
                _end(process.pid)
                process.join()
        lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]  # not one it died in
    return Outcome(state, round(time.perf_counter() - started, 1), dict(whole))


def _end(pid: int | None) -> None:
    """Kill a stage with whatever it has started."""
    assert pid is not None
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet
        os.kill(pid, signal.SIGKILL)


def write_rows(module: str, name: str, card: Any, out: Path) -> None:
    """In the stage's process: its rows to a file, each as soon as it is known."""
    os.setsid()
    with out.open("a", encoding="utf-8") as file:

        def keep(key: str, value: Any) -> None:
            print(f"  {key}: {value}", flush=True)
            file.write(json.dumps([key, value], default=str) + "\n")
            file.flush()

        try:
            stage: Callable[[Any], Iterator[tuple[str, Any]]]
            stage = getattr(import_module(module), name)
            for key, value in stage(card):
                keep(key, value)
        except BaseException as error:
            traceback.print_exc()
            keep("failed", {"failed": f"{type(error).__name__}: {error}"[:300]})
            raise SystemExit(1) from None


def about(card: Any) -> dict[str, Any]:
    """The machine, the card and the versions that the numbers belong to."""
    import torch

    versions: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    try:
        versions["triton"] = import_module("triton").__version__
    except ModuleNotFoundError:
        versions["triton"] = None
    if not card.is_cuda:
        return {"card": None, "machine": platform.machine(), **versions}
    properties = torch.cuda.get_device_properties(card.device)
    memory = round(properties.total_memory / 2**30, 1)
    return {"card": properties.name, "memory, GiB": memory, "cuda": torch.version.cuda, **versions}


def broken(outcomes: dict[str, Outcome]) -> list[str]:
    """What must not be: stages that did not finish, pairs that are wrong, losses that differ, a
    resumed run that is another, sums in half precision."""
    return [f"{name} {o.state}" for name, o in outcomes.items() if o.state != "finished"] + [
        f"{name}: {key}: {wrong}"
        for name, outcome in outcomes.items()
        for key, value in outcome.rows.items()
        if (wrong := _wrong(value)) and not (name == "peers" and "failed" in str(value))
    ]


def _wrong(value: Any) -> str:
    """What is wrong with a row, empty if nothing is."""
    if value is False:
        return "False"
    if not isinstance(value, dict):
        return ""
    if value.get("pairs wrong"):
        return f"{value['pairs wrong']} pairs wrong"
    if value.get("value", 0) > value.get("allowed", float("inf")):
        return f"{value['value']} is more than {value['allowed']}"
    return value.get("failed", "")


def wanted(outcomes: dict[str, Outcome], card: str | None) -> list[Any]:
    """The targets beside what is known."""
    targets = import_module("benchmarks.gpu.targets").targets
    return targets({name: outcome.rows for name, outcome in outcomes.items()}, card)


def check(card: Any, stages: tuple[Stage, ...], out: Path, whole: float = WHOLE) -> list[str]:
    """Run the stages one after another, write what is known after each; returns what is broken."""
    began, outcomes = time.perf_counter(), {}
    machine, day = about(card), date.today().isoformat()
    for number, stage in enumerate(stages):
        left = whole - (time.perf_counter() - began)
        print(f"== {stage.name}, {min(stage.seconds, left):.0f} s at most", flush=True)
        if left < 1:
            outcomes[stage.name] = Outcome("not run: the time was up", 0.0, {})
        else:
            outcomes[stage.name] = run(stage, card, min(stage.seconds, left))
        result = {
            "schema": "saelab/gpu-check/1",
            "date": day,
            **machine,
            "tiny": card.tiny,
            "broken": broken(outcomes),
            "targets": [t._asdict() | {"met": t.met} for t in wanted(outcomes, machine["card"])],
            "not reached": [later.name for later in stages[number + 1 :]],
            "stages": {name: outcome._asdict() for name, outcome in outcomes.items()},
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if stage.name == STOP[0] and outcomes[stage.name].rows.get(STOP[1]) is False:
            break
    for target in wanted(outcomes, machine["card"]):
        met = {None: "not known", True: "met", False: "MISSED"}[target.met]
        print(f"{target.what}: at most {target.most}, measured {target.measured}: {met}")
    return broken(outcomes)


def main(argv: list[str] | None = None) -> int:
    """The command line; 1 if anything is broken, 2 for a device that is not here."""
    import torch

    from benchmarks.gpu.card import Card

    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description="What this project does on a real card.")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(names)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="on inputs for Triton's interpreter")
    parser.add_argument("--out", type=Path, help="JSON file (default: by card and date)")
    args = parser.parse_args(argv)
    card = Card(args.device, args.tiny)
    if unknown := set(args.stages) - set(names):
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if card.is_cuda and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu --tiny checks the script alone")
    if not card.is_cuda:
        if not card.tiny:
            parser.error("on a CPU the kernels are interpreted, which takes --tiny")
        os.environ["TRITON_INTERPRET"] = "1"
    slug = re.sub(r"[^a-z0-9]+", "-", str(about(card)["card"] or "interpreted").lower())
    out = args.out or RESULTS / f"gpu_{slug}_{date.today().isoformat()}.json"
    chosen = tuple(stage for stage in STAGES if not args.stages or stage.name in args.stages)
    if card.tiny:  # it is the script that is checked, on a machine that may be busy
        chosen = tuple(stage._replace(seconds=4 * stage.seconds) for stage in chosen)
    found = check(card, chosen, out, WHOLE * (4 if card.tiny else 1))
    print(f"written: {out}")
    for line in found:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
