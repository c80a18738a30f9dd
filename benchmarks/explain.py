"""What explaining every live feature of a run by rules takes: seconds and CPU seconds of `saelab
explain`, imports and loading included, with the scores that it printed.

    python benchmarks/explain.py runs/demo --out benchmarks/results/explain_MACHINE.json
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

from saelab.files import write_json

KEPT = ("tokens", "held_out", "documents", "live", "unseen", "without", "kinds")
VERB = "import sys; from apps.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    """Run the verb once, write what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    words = ["explain", str(args.run), "--json"]
    words += ["--cache", str(args.cache)] if args.cache else []
    started = time.perf_counter()
    command = [sys.executable, "-c", VERB, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(done.stdout)
    document = {
        "schema": "saelab/explain-speed/1",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
        **{name: said[name] for name in KEPT},
        **{name: said[name] for name in ("rule", "token", "gain")},
    }
    write_json(args.out, document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
