"""HTML in which no text can become markup: the one place where the pages' texts are escaped.

A piece of HTML is a `Markup`; whatever else is put into a template, or joined with such pieces, is
text and is escaped. Templates are literals, never made of what a file says.
"""

from collections.abc import Iterable
from typing import Any, LiteralString

from markupsafe import Markup, escape

__all__ = ["EMPTY", "Markup", "escape", "html", "joined"]

EMPTY = Markup("")


def html(template: LiteralString, *parts: Any, **named: Any) -> Markup:
    """The template with the parts in their places.

    >>> html("<b>{}</b>", "1 < 2")
    Markup('<b>1 &lt; 2</b>')
    """
    return Markup(template).format(*parts, **named)


def joined(parts: Iterable[Any], between: LiteralString = "") -> Markup:
    """Pieces one after the other."""
    return Markup(between).join(parts)
