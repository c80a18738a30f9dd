"""The browser's pages over an index of many features, with Streamlit itself and a real Chromium:
what opening, a feature's page and a search take of the server's CPU, and how much memory it has.

    python benchmarks/index_scale.py --features 100000 --path big.db
    python -m benchmarks.index_pages big.db --out benchmarks/results/index_pages_MACHINE.json

CPU seconds stand for the server's time: they are the same on a machine that does other work.
"""

import argparse
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from benchmarks.index_scale import VOCABULARY, made
from benchmarks.pages import CHROMIUM, FLAGS, _free_port, cpu, listened, settle, started
from saelab.files import write_json


def run_around(index: Path, args: argparse.Namespace, folder: Path) -> Path:
    """A run that holds the index and an SAE of its shape."""
    run = folder / "runs" / "wide"
    made(args).save(run / "sae")
    shutil.copy(index, run / "features.db")
    (run / "config.yaml").write_text(f"k: {args.k}\n")
    (run / "metrics.jsonl").write_text("")
    return run


def memory(server: subprocess.Popen) -> float:
    """Megabytes that a process has had at most."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1024


def spent(page: Page, server: subprocess.Popen, received: list[int], address: str) -> dict:
    """Seconds of the server's CPU, and of the clock, until a page stands."""
    before, started_at = cpu(server), time.monotonic()
    page.goto(address)
    settle(page, received)
    return {"cpu_s": cpu(server) - before, "wall_s": time.monotonic() - started_at}


def told(rows: list[dict]) -> dict:
    """The median, 95th percentile and most of each number."""
    answer = {}
    for name in rows[0]:
        ordered = sorted(row[name] for row in rows)
        at = {"median": 0.5, "p95": 0.95, "most": 1.0}
        places = {
            key: min(int(share * len(ordered)), len(ordered) - 1) for key, share in at.items()
        }
        answer[name] = {key: round(ordered[place], 3) for key, place in places.items()}
    return {"n": len(rows), **answer}


def measured(page: Page, server: subprocess.Popen, root: str, args: argparse.Namespace) -> dict:
    """The list of features for the first time, pages of random features, searches."""
    rng, received = random.Random(0), listened(page)
    spend = lambda path: spent(page, server, received, f"{root}{path}")  # noqa: E731
    opening = spend("/features?run=wide")
    page.wait_for_selector("table tbody tr", timeout=60_000)
    assert page.locator("table tbody tr").count() == 30
    numbers = [rng.randrange(args.features) for _ in range(args.pages)]
    features = [spend(f"/feature?run=wide&feature={number}") for number in numbers]
    assert page.locator("h1", has_text=f"Feature {numbers[-1]}").count() == 1
    words = [f"w{3 * rng.randrange(1, VOCABULARY // 3) + 1:x}" for _ in range(args.searches)]
    searches = [spend(f"/features?run=wide&q={quote(word)}") for word in words]
    return {
        "opening": {name: round(value, 3) for name, value in opening.items()},
        "feature": told(features),
        "search": told(searches),
        "server_mb": memory(server),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run, port = run_around(args.index, args, Path(folder)), _free_port()
        start = "import sys; from apps.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", start, "browse", str(run.parent), "--port", str(port)]
        server = started(command, port)
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            result = measured(page, server, f"http://127.0.0.1:{port}", args)
            browser.close()
        finally:
            server.terminate()
            server.wait(10)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    shape = {"features": args.features, "width": args.width, "k": args.k}
    result = {"machine": machine, "command": " ".join(sys.argv), **shape, **result}
    print(result)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
