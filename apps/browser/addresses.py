"""Where links lead: to a page of the app, or to what a block says. Imports no Streamlit.

A link has `data-page` and `href="/page?query"`: the app follows it without a reload, a new tab
opens it by itself.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlencode

from .html import Markup, html

Address = Callable[[str, Mapping[str, Any]], str | None]


def in_the_app(page: str, query: Mapping[str, Any]) -> str:
    """The address of a page of the app."""
    path = "/" if page == "overview" else f"/{page}"
    return f"{path}?{urlencode(query)}"


_address: ContextVar[Address] = ContextVar("address", default=in_the_app)


@contextlib.contextmanager
def addressed(address: Address) -> Iterator[None]:
    """Within the block links lead where `address(page, query)` says; None makes no link.

    with addressed(lambda page, query: f"{query['feature']}.html"):
        draw.neighbours(nearest, "demo")
    """
    token = _address.set(address)
    try:
        yield
    finally:
        _address.reset(token)


def link(page: str, body: str, classes: str = "", /, **query: Any) -> Markup:
    """A link to a page with a query."""
    href = _address.get()(page, query)
    if href is None:
        return html('<span class="{}">{}</span>', classes, body)
    return html('<a class="{}" data-page="{}" href="{}">{}</a>', classes, page, href, body)


def change(page: str, body: str, classes: str = "", /, **query: Any) -> Markup:
    """A link within a page of the app that changes parts of its address, "" taking one away; the
    rest, such as a long text, stays without every link repeating it."""
    if _address.get()(page, query) is None:
        return html('<span class="{}">{}</span>', classes, body)
    merged = urlencode(query)
    return html(
        '<a class="{}" data-page="{}" data-merge="{}" href="{}">{}</a>',
        *(classes, page, merged, in_the_app(page, query), body),
    )
