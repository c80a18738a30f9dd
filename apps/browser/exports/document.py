"""An HTML file by itself: it opens from disk and asks for nothing but what lies beside it."""

from collections.abc import Iterable
from pathlib import Path

from .. import draw
from ..html import Markup, html, joined, sheet

STYLE = "style.css"
# Whatever the page holds, nothing is loaded from another address, and nothing is sent.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'self' file: 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)


def style() -> str:
    """The pages' own style sheet, and what a page by itself needs beside it."""
    return draw.style() + (Path(__file__).parent / "export.css").read_text(encoding="utf-8")


def page(title: str, body: Iterable[Markup], *, beside: str | None = None) -> str:
    """A whole page. beside: the folder, seen from the page, where STYLE lies; None: it is put into
    the page.

    >>> Path("a.html").write_text(page("A", [draw.title("A")]), encoding="utf-8")
    """
    if beside is None:
        head = sheet(style())
    else:
        head = html('<link rel="stylesheet" href="{}{}">', beside, STYLE)
    return html(
        """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>{style}</head>
<body class="sl alone"><main>{body}</main></body></html>
""",
        policy=POLICY,
        title=title,
        style=head,
        body=joined(body),
    )
