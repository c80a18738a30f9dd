"""Links of the documentation lead to files that are here, and to headings that are in them."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(path for folder in ("data", "docs", "training") for path in (ROOT / folder).rglob("*.md")),
]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def broken(path: Path) -> list[str]:
    """The links of a document that lead nowhere; those to other sites are not followed."""
    lost = []
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        where, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        there = (path.parent / where).resolve() if where else path
        headings = (
            anchors(there.read_text()) if there.suffix == ".md" and there.exists() else {anchor}
        )
        if not there.exists() or (anchor and anchor not in headings):
            lost.append(link)
    return lost


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path):
    assert broken(path) == []


def test_a_link_to_nowhere_is_caught(tmp_path: Path):
    here = tmp_path / "here.md"
    here.write_text("# A heading\n[a](gone.md) [b](#a-heading) [c](#none) [d](https://x.y/z)")
    assert broken(here) == ["gone.md", "#none"]
