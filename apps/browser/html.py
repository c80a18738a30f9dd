"""HTML in which no text can become markup: the one place where the pages' texts are escaped.

A piece of HTML is a `Markup`; whatever else is put into a template, or joined with such pieces, is
text and is escaped. Templates are literals, never made of what a file says.
"""

import json
from collections.abc import Iterable
from typing import Any, LiteralString

from markupsafe import Markup, escape

__all__ = ["EMPTY", "Markup", "data", "escape", "html", "joined", "sheet"]

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


def data(value: Any, name: str) -> Markup:
    """A script element of that id that holds JSON, in which nothing can end the element or begin
    one.

    >>> data(["</script>"], "rows")
    Markup('<script type="application/json" id="rows">["\\u003c/script\\u003e"]</script>')
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return html('<script type="application/json" id="{}">{}</script>', name, Markup(text))


def sheet(css: str) -> Markup:
    """A style element of the project's own rules. Raises ValueError for a text that would end
    it."""
    if "</" in css:
        raise ValueError("a style sheet with an end tag in it")
    return html("<style>{}</style>", Markup(css))
