"""Take the pictures of the browser's pages, from a folder of runs, and of what they say where there
is nothing.

    python docs/shots.py runs

Each page at 1440 and 820 pixels, light and dark, in a real Chromium whose requests to anything but
the server are cut off: a page that asks elsewhere fails.
"""

import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import product
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Route, sync_playwright

from saelab.errors import FailedRun, UsageError
from saelab.features.reader import FeatureIndex
from saelab.files import read_json, write_json

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
    "picture": ("/picture?run={images}&context={context}&labels={kind}", "table"),
    "picture-feature": ("/feature?run={images}&feature={shown}", ".pictures"),
}
KINDS = {"circuits": "circuit.json", "graphs": "graphs.json"}  # pages of files that runs may lack
# What pages say where a run lacks something, and of what there is not.
WITHOUT = {
    "no-index-overview": ("/?run=bare", "h1"),
    "no-index-features": ("/features?run=bare", ".empty"),
    "no-index-feature": ("/feature?run=bare&feature=7", ".empty"),
    "other-schema": ("/features?run=old", ".empty"),
    "damaged-index": ("/features?run=cut", ".empty"),
    "unfinished": ("/?run=begun", "h1, .empty"),
    "no-text-prompt": ("/prompt?run=demo", ".empty"),
    "no-model-prompt": ("/prompt?run=moved&text=def+mean(values):", ".empty:not([role])"),
    "no-feature": ("/feature?run=demo&feature=1000000000", ".empty"),
    "silent-feature": ("/feature?run=demo&feature={silent}", ".empty"),
    "nothing-found": ("/features?run=demo&q=zyxwvutsrq", "table, .empty"),
    "no-image": ("/picture?run=demo", ".empty"),
    "no-such-run": ("/?run=gone", ".empty"),
    "not-compared": ("/compare?run=demo&other=bare", ".empty"),
    "no-circuits": ("/circuits", ".empty"),
    "no-graphs": ("/graphs", ".empty"),
}
ALONE = {"one-run-compare": ("/compare", ".empty")}  # of a folder with one run


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


def filled(pages: dict[str, tuple[str, str]], known: dict[str, object]) -> dict:
    """The pages whose addresses need no more than is known."""
    made = {}
    for name, (where, drawn) in pages.items():
        with contextlib.suppress(KeyError):
            made[name] = where.format_map(known), drawn
    return made


def known_of(runs: Path) -> dict[str, object]:
    """What addresses are filled with: a feature of the demo that never fired, and of a run on
    images its name, a feature and an image."""
    with FeatureIndex(runs / "demo" / "features.db") as index:
        known: dict[str, object] = {"silent": int(index.arrays["fired"].argmin())}
    for path in sorted(runs.glob("*/features.db")):
        with contextlib.suppress(UsageError, FailedRun), FeatureIndex(path) as index:
            if said := index.summary.get("images"):
                (best,) = index.table(limit=1).rows
                (first, *_) = index.examples(best.feature)
                known |= {"images": path.parent.name, "shown": best.feature}
                known |= {"context": first.context, "kind": [*said["kinds"], ""][0]}
    return known


def lacking(runs: Path, some: Path) -> None:
    """Make a folder of the demo's runs and of copies that each lack something."""
    demo = runs / "demo"
    for name in ("bare", "old", "cut", "moved"):
        shutil.copytree(demo / "sae", some / name / "sae")
    for place in runs.glob("demo*"):
        (some / place.name).symlink_to(place.resolve())
    shutil.copy(demo / "features.db", some / "old")
    with contextlib.closing(sqlite3.connect(some / "old" / "features.db")) as old:
        old.execute("update meta set value = 'saelab/features/1' where key = 'schema'")
        old.commit()
    whole = (demo / "features.db").read_bytes()
    (some / "cut" / "features.db").write_bytes(whole[: len(whole) // 2])
    header = read_json(some / "moved" / "sae" / "sae.json")
    header["origin"]["model"]["name"] = "/models/gpt2"
    write_json(some / "moved" / "sae" / "sae.json", header)
    (some / "begun").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(demo / name, some / "begun")


def main(runs: Path) -> None:
    """Take the pictures of the runs, of runs that lack something, and of one alone."""
    HERE.mkdir(exist_ok=True)
    shutil.rmtree(HERE / "all", ignore_errors=True)
    held = [name for name, kind in KINDS.items() if not any(runs.glob(f"*/{kind}"))]
    known = known_of(runs)
    pages = filled(PAGES, known)
    serve(runs, {name: page for name, page in pages.items() if name not in held}, 4000)
    with tempfile.TemporaryDirectory() as folder:
        some, one = Path(folder, "runs"), Path(folder, "one", "runs")
        lacking(runs, some)
        serve(some, filled(WITHOUT, known), 1500)
        shutil.copytree(runs / "demo" / "sae", one / "demo" / "sae")
        serve(one, ALONE, 1500)


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
