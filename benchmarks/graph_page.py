"""What the page of a large attribution graph costs: bytes that its canvas is given, and frames a
second while its threshold moves and while the pointer does, in a real Chromium that draws on the
CPU.

    python benchmarks/graph_page.py --nodes 2000 --links 20000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from apps.browser import graph
from apps.cli import bench
from saelab.files import write_json
from tests.apps import toy_graph
from tests.apps.conftest import CHROMIUM, FLAGS

PORT = 8797
PATIENCE = 300  # s, for machines that do other work
# Frames in two seconds, in each of which the threshold is another one.
MOVING = """() => new Promise((done) => {
  const slider = document.querySelector(".graph .kept"), start = performance.now();
  let frames = 0;
  const step = () => {
    const elapsed = performance.now() - start;
    if (elapsed > 2000) { done(1000 * frames / elapsed); return; }
    frames += 1;
    slider.value = 0.5 + 0.5 * Math.abs(Math.sin(elapsed / 300));
    slider.dispatchEvent(new Event("input"));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
HOVERING = """() => new Promise((done) => {
  const canvas = document.querySelector(".graph canvas"), box = canvas.getBoundingClientRect();
  const start = performance.now();
  let frames = 0;
  const step = () => {
    const elapsed = performance.now() - start;
    if (elapsed > 2000) { done(1000 * frames / elapsed); return; }
    frames += 1;
    const at = { clientX: box.left + 80 + (elapsed / 2) % (box.width - 100),
                 clientY: box.top + 200 + 80 * Math.sin(elapsed / 200) };
    canvas.dispatchEvent(new PointerEvent("pointermove", at));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def measured(page: Page, address: str) -> dict[str, float]:
    page.goto(f"{address}/graphs")
    page.wait_for_selector(".graph canvas")
    page.evaluate("() => { document.querySelector('.graph .linked').value = 1; }")
    time.sleep(1)
    return {"moving_fps": page.evaluate(MOVING), "hovering_fps": page.evaluate(HOVERING)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--links", type=int, default=20000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/graph_page.json"))
    args = parser.parse_args()
    n_features = args.nodes - 7
    document = toy_graph.graph(n_features, args.links)
    payload = graph.payload(document, {}, lambda hook, number: "a few words", args.nodes)
    fields = {"machine": bench.explained(), "nodes": args.nodes, "links": len(payload["links"])}
    fields["load"] = os.getloadavg()[0]  # processes that run beside it; cores of the machine: below
    fields["cores"] = os.cpu_count()
    fields["payload_bytes"] = len(json.dumps(payload, separators=(",", ":")))
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        toy_graph.make(Path(place) / "graph", n_features, args.links)
        command = [sys.executable, "-m", "saelab", "browse", place, "--port", str(PORT)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ))
        try:
            time.sleep(8)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.set_default_timeout(1000 * PATIENCE)
            fields |= measured(page, f"http://127.0.0.1:{PORT}")
        finally:
            server.terminate()
    write_json(args.out, fields)
    print({name: value for name, value in fields.items() if name != "machine"})


if __name__ == "__main__":
    main()
