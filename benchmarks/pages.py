"""What the pages of the browser cost: server CPU, bytes sent until a page stands, nodes beyond
Streamlit's own empty page, in a real Chromium.

    python benchmarks/pages.py runs --run demo --out benchmarks/results/pages_cpu.json

The bytes are those of the websocket; the app's own scripts and styles, which the browser keeps, are
not among them. Nodes are elements; `empty` is the count of a Streamlit app without any.
"""

import argparse
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from saelab.files import write_json

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
COUNT = "document.querySelectorAll('*').length"
FEATURES = 20  # feature pages whose CPU time is averaged
SETTLED = 1.0  # seconds of silence after which a page stands


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(command: list[str], port: int) -> subprocess.Popen:
    """A server that answers."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
            return server
        except OSError:
            time.sleep(0.1)
    server.terminate()
    raise SystemExit("the server did not start")


def cpu(server: subprocess.Popen) -> float:
    """Seconds of CPU that a process has had."""
    words = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def settle(page: Page, received: list[int]) -> None:
    """Wait until the page's script has ended, and nothing more comes."""
    page.wait_for_selector("[data-test-script-state=notRunning]", state="attached")
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLED:
        page.wait_for_timeout(100)
        if len(received) != seen:
            seen, since = len(received), time.monotonic()


def listened(page: Page) -> list[int]:
    """The sizes of the messages that the page gets, as they come."""
    received: list[int] = []

    def opened(socket) -> None:
        socket.on("framereceived", lambda message: received.append(len(message)))

    page.on("websocket", opened)
    return received


def one(browser: Browser, address: str) -> dict[str, int]:
    """Bytes and nodes of a page at its first paint."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    received = listened(page)
    page.goto(address)
    settle(page, received)
    cost = {"bytes": sum(received), "nodes": page.evaluate(COUNT)}
    page.close()
    return cost


def steps(browser: Browser, server: subprocess.Popen, address: str) -> dict[str, float]:
    """Seconds of server CPU per feature page, stepping from one to the next."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    received = listened(page)
    page.goto(address)
    settle(page, received)
    times = []
    for _ in range(FEATURES):
        before, sent = cpu(server), sum(received)
        page.click("a.next")
        settle(page, received)
        times.append((cpu(server) - before, sum(received) - sent))
    page.close()
    seconds, sizes = zip(*times, strict=True)
    return {
        "cpu_s": round(statistics.mean(seconds), 4),
        "cpu_s_p95": round(sorted(seconds)[int(0.95 * len(seconds))], 3),
        "bytes": round(statistics.mean(sizes)),
    }


def empty_page(browser: Browser) -> int:
    """Nodes of a Streamlit app that shows nothing."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "empty.py"
        script.write_text("import streamlit\n")
        port = _free_port()
        options = ["--server.headless=true", f"--server.port={port}"]
        server = started([sys.executable, "-m", "streamlit", "run", str(script), *options], port)
        try:
            return one(browser, f"http://127.0.0.1:{port}/")["nodes"]
        finally:
            server.terminate()
            server.wait(10)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--run", default="demo")
    parser.add_argument("--feature", type=int, default=100)
    parser.add_argument("--dense", type=int, help="a feature that fires on most tokens")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    port = _free_port()
    start = "import sys; from apps.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "browse", str(given.runs), "--port", str(port)]
    server = started(command, port)
    root = f"http://127.0.0.1:{port}"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            feature = f"{root}/feature?run={given.run}&feature={given.feature}"
            addresses = {"feature": feature, "features": f"{root}/features?run={given.run}"}
            addresses |= {"search": f"{root}/features?run={given.run}&q=self"}
            addresses |= {"overview": f"{root}/?run={given.run}"}
            if given.dense is not None:
                dense = f"{root}/feature?run={given.run}&feature={given.dense}"
                addresses["dense feature"] = dense
            pages = {name: one(browser, address) for name, address in addresses.items()}
            stepped = steps(browser, server, feature)
            empty = empty_page(browser)
            browser.close()
    finally:
        server.terminate()
        server.wait(10)
    told = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "empty_page_nodes": empty,
        "run": {"name": given.run, "feature": given.feature, "dense": given.dense},
        "first_paint": pages,
        "next_feature": stepped,
    }
    print(told)
    if given.out:
        write_json(given.out, told)


if __name__ == "__main__":
    main()
