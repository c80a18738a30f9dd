"""Take the pictures of the browser's pages that the documentation shows, from a folder of runs.

    python docs/shots.py runs

Each page at 1440 pixels in the light theme and at 820 in the dark one, in a real Chromium whose
requests to anything but the server are cut off. A page that asks elsewhere fails.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Route, sync_playwright

HERE = Path(__file__).resolve().parent / "pictures"
PORT = 8719
ADDRESS = f"http://127.0.0.1:{PORT}"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ["--no-sandbox", "--disable-background-networking"]
VIEWS = {"light": (1440, 1000), "dark": (820, 1200)}
# name: the page's address, and what stands there once it is drawn
PAGES = {
    "overview": ("/?run=demo", "h1"),
    "runs": ("/runs", "h1, h2, table"),
    "features": ("/features?run=demo", "table"),
    "feature": ("/feature?run=demo&feature=1803", ".examples"),
    "prompt": ("/prompt?run=demo&text=def+mean(values):", "table.grid"),
    "compare": ("/compare", "h1, h2, p.empty"),
    "circuits": ("/circuits", "h1, p.empty"),
    "graphs": ("/graphs", ".graph canvas, p.empty"),
}


def within(route: Route) -> None:
    """Let a request to the server through, and no other."""
    if not route.request.url.startswith((ADDRESS, "data:", "blob:")):
        raise RuntimeError(f"a page asks for {route.request.url}")
    route.continue_()


def take(browser: Browser, theme: str, pages: dict[str, tuple[str, str]]) -> None:
    """Take the pictures of one theme."""
    width, height = VIEWS[theme]
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme=theme)  # type: ignore[arg-type]
    context.route("**/*", within)
    for name, (where, drawn) in pages.items():
        page = context.new_page()
        page.goto(ADDRESS + where)
        page.wait_for_selector(drawn, timeout=60_000)
        page.wait_for_timeout(4000)  # charts draw themselves in
        page.screenshot(path=HERE / f"{name}-{theme}.png")
        page.close()
    context.close()


def main(runs: str) -> None:
    """Serve the runs, and take every picture."""
    HERE.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "saelab", "browse", runs, "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for theme in VIEWS:
                take(browser, theme, PAGES)
            browser.close()
    finally:
        server.terminate()


def _wait() -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{ADDRESS}/_stcore/health", timeout=1)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the server did not start")


if __name__ == "__main__":
    main(sys.argv[1])
