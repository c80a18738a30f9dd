"""Draw the figures of the reproductions, HTML and PNG, from their committed documents.

    python docs/reproductions.py

The HTML takes plotly's script from its CDN, so that it stays small; the PNG, by a real Chromium,
needs nothing.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from apps.browser.exports import claims, figures, grids  # noqa: E402

OUT = ROOT / "docs" / "reproductions"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ["--no-sandbox", "--disable-background-networking"]
WIDTH = 1000


def main() -> None:
    """docs/reproductions/PAPER.html and .png of every document of claims in benchmarks/results,
    PAPER-grid of every grid."""
    OUT.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for path in sorted((ROOT / "benchmarks" / "results").glob("reproduce_*.json")):
            result = json.loads(path.read_text())
            kind = grids if "runs" in result else claims
            drawn = kind.figure(result)
            drawn.update_layout(width=WIDTH, paper_bgcolor="white", plot_bgcolor="white")
            out = OUT / path.stem.removeprefix("reproduce_")
            small = drawn.to_html(include_plotlyjs="cdn", config=figures.CONFIG)
            out.with_suffix(".html").write_text(small, encoding="utf-8")
            page = browser.new_page(viewport={"width": WIDTH + 20, "height": 600})
            page.set_content(figures.to_html(drawn))
            page.locator(".plot-container").screenshot(path=out.with_suffix(".png"))
        browser.close()


if __name__ == "__main__":
    main()
