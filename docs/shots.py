"""Take the pictures of the browser's pages, from a folder of runs, and of what they say where there
is nothing.

    python docs/shots.py runs

Each page at 1440 and 820 pixels, light and dark, in a real Chromium whose requests to anything but
the server are cut off: a page that asks elsewhere fails.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import product
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Route, sync_playwright

HERE = Path(__file__).resolve().parent / "pictures"
PORT = 8719
ADDRESS = f"http://127.0.0.1:{PORT}"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ["--no-sandbox", "--disable-background-networking"]
THEMES, WIDTHS = ("light", "dark"), {1440: 1000, 820: 1200}  # width: height
SHOWN = {("light", 1440): "light", ("dark", 820): "dark"}  # those that the documentation shows
# No chart is waited for, and nothing runs.
DRAWN = """() => !document.querySelector(
    '[data-testid="stSkeleton"], [data-testid="stStatusWidget"], [role="status"]')"""
SLOWEST = 300_000  # ms until a page is there
COLOURS, QUALITY = 128, 55  # of the PNG files that are shown, of the others' WebP
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
KINDS = {"circuits": "circuit.json", "graphs": "graphs.json"}  # pages of files that runs may lack
# Where there is no index, no text, and for what there is not; `browse` refuses a folder without
# runs.
WITHOUT = {
    "no-index-features": ("/features?run=bare", ".empty"),
    "no-index-feature": ("/feature?run=bare&feature=7", ".empty"),
    "no-text-prompt": ("/prompt?run=demo", ".empty"),
    "no-feature": ("/feature?run=demo&feature=1000000000", ".empty"),
    "nothing-found": ("/features?run=demo&q=zyxwvutsrq", "table, .empty"),
    "no-such-run": ("/?run=gone", ".empty"),
}


def within(route: Route) -> None:
    """Let a request to the server through, and no other."""
    if not route.request.url.startswith((ADDRESS, "data:", "blob:")):
        raise RuntimeError(f"a page asks for {route.request.url}")
    route.continue_()


def keep(taken: bytes, name: str, theme: str, width: int) -> None:
    """Write a picture: few colours are enough for what the documentation shows, and a small size
    for the rest."""
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    if shown := SHOWN.get((theme, width)) if name in PAGES else None:
        few = picture.quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(HERE / f"{name}-{shown}.png", optimize=True)
    else:
        folder = HERE / "all"
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{name}-{theme}-{width}.webp", quality=QUALITY, method=6)


def take(browser: Browser, pages: dict[str, tuple[str, str]], pause: int) -> None:
    """Take the pictures of some pages."""
    for theme, (width, height) in product(THEMES, WIDTHS.items()):
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, color_scheme=theme)  # type: ignore[arg-type]
        context.route("**/*", within)
        page = context.new_page()
        page.set_default_timeout(SLOWEST)
        for name, (where, drawn) in pages.items():
            page.goto(ADDRESS + where, wait_until="commit")
            page.wait_for_selector(drawn)
            page.wait_for_function(DRAWN)
            page.wait_for_timeout(pause)  # charts draw themselves in
            keep(page.screenshot(), name, theme, width)
        context.close()


def serve(runs: Path, pages: dict[str, tuple[str, str]], pause: int) -> None:
    """Serve a folder of runs, and take every picture of it. pause: ms until a page is drawn."""
    # From the folder above: pages name places as the reader would.
    command = [sys.executable, "-m", "saelab", "browse", runs.name, "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=runs.parent)
    try:
        _wait()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            take(browser, pages, pause)
            browser.close()
    finally:
        server.terminate()
        server.wait(10)


def main(runs: Path) -> None:
    """Take the pictures of the runs, and of a run without an index."""
    HERE.mkdir(exist_ok=True)
    held = [name for name, kind in KINDS.items() if not any(runs.glob(f"*/{kind}"))]
    serve(runs, {name: page for name, page in PAGES.items() if name not in held}, 4000)
    with tempfile.TemporaryDirectory() as folder:
        some = Path(folder, "runs")
        shutil.copytree(runs / "demo" / "sae", some / "bare" / "sae")
        for place in runs.iterdir():
            (some / place.name).symlink_to(place.resolve())
        serve(some, WITHOUT, 1500)


def _wait() -> None:
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"{ADDRESS}/_stcore/health", timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not start")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
