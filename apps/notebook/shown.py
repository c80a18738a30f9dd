"""What a notebook shows of itself: HTML with its own style, in the notebook's light or dark."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..browser import draw
from ..browser.exports import document
from ..browser.html import Markup, html, sheet

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Shown:
    """A piece of HTML that a notebook displays, and a line that a terminal prints.

    >>> show.tokens(["a", "b"], [0.0, 1.0]).save("tokens.html")
    """

    def __init__(self, body: Markup, line: str) -> None:
        self.body, self.line = body, line

    def __repr__(self) -> str:
        return self.line

    def _repr_html_(self) -> str:
        return sheet(style()) + html('<div class="sl nb">{}</div>', self.body)

    def save(self, path: Path | str) -> None:
        """Write it as an HTML file by itself, which loads nothing from elsewhere."""
        Path(path).write_text(document.page(self.line, [self.body]), encoding="utf-8")


class Figure:
    """A plotly figure on a ground of its own, which a notebook displays without plotly's 5 MB of
    script in every output: Jupyter and VS Code have it. `figure` is the figure itself."""

    def __init__(self, figure: "go.Figure") -> None:
        self.figure = figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")

    def __repr__(self) -> str:
        return "a figure: `.figure` is plotly's, `.save` writes it"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        drawn = json.loads(self.figure.to_json() or "{}")
        return {"application/vnd.plotly.v1+json": drawn, "text/plain": repr(self)}

    def save(self, path: Path | str) -> None:
        """Write it as .html, .svg or .png (`apps.browser.exports.figures`)."""
        from ..browser.exports import figures

        figures.save(self.figure, Path(path))


def style() -> str:
    """The pages' style sheet, and what it takes inside a notebook."""
    return draw.style() + (Path(__file__).parent / "notebook.css").read_text(encoding="utf-8")


def frame(rows: Iterable[Any] | None, like: Any = None, **columns: Any) -> Any:
    """A pandas DataFrame of rows (named tuples or mappings), or of columns by name. like: the named
    tuple that rows would be, where there may be none."""
    import pandas

    if rows is None:
        return pandas.DataFrame(columns)
    plain = [row._asdict() if hasattr(row, "_asdict") else dict(row) for row in rows]
    return pandas.DataFrame(plain, columns=None if like is None or plain else list(like._fields))
