"""The server of the pages: it answers this machine's own browser, under this machine's name, and
its pages load nothing from elsewhere."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saelab.errors import FailedRun, UsageError

from .html import html

SCRIPT = Path(__file__).with_name("app.py")
NAMES = ("127.0.0.1", "localhost")  # what this machine calls itself
OPTIONS: dict[str, Any] = {
    "server.headless": True,  # opens no browser window
    "server.fileWatcherType": "none",
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    # A page of a foreign name that is made to resolve to this machine gets no answer.
    "server.allowedHosts": list(NAMES),
    "server.enableAgentApi": False,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorLinks": False,  # they lead to search engines and chat services
    "client.showErrorDetails": "none",
    "global.developmentMode": False,
    # After every page Streamlit looks through all objects of the process for garbage: 0.3 s of CPU
    # once a model is loaded. Python does so by itself when there is some.
    "runner.postScriptGC": False,
    "logger.level": "error",
    "theme.baseFontSize": 14,
    # As in style.css; which of the two holds is the browser's choice.
    "theme.light.primaryColor": "#2f6f6a",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f5f7f9",
    "theme.light.textColor": "#1f2933",
    "theme.light.borderColor": "#dfe4e9",
    "theme.dark.primaryColor": "#34807a",
    "theme.dark.backgroundColor": "#12161c",
    "theme.dark.secondaryBackgroundColor": "#1b212a",
    "theme.dark.textColor": "#e4e8ed",
    "theme.dark.borderColor": "#323b47",
}


def run(host: str, port: int) -> None:
    """Serve the pages at an address until interrupted."""
    address = {"server.address": host, "server.port": port, "browser.serverAddress": host}
    app(port).run(config={**OPTIONS, **address})


def app(port: int) -> st.App:
    """The pages with their guards: the Host of every request is checked, and every answer says what
    its page may load."""
    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=list(NAMES), www_redirect=False),
        Middleware(Headers, headers={**HEADERS, "Content-Security-Policy": policy(port)}),
    ]
    return st.App(SCRIPT, middleware=guards, on_script_error=told)


def told(error: Exception) -> bool:
    """What a page says instead of a traceback: damaged files are the user's to mend."""
    from . import state  # its caches are for a running server only

    kind = "" if isinstance(error, (UsageError, FailedRun)) else f"{type(error).__name__}: "
    why = " ".join(str(error).split())
    state.show(html('<p class="empty">This page cannot be shown: {}{}</p>', kind, why))
    return True


HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def policy(port: int) -> str:
    """The content security policy: nothing from another address, no frames.

    Styles are inline because Streamlit and plotly write theirs into the page; scripts may be blobs
    because Streamlit starts components' that way; of inline scripts only Streamlit's own may run.
    """
    sockets = " ".join(f"ws://{name}:{port}" for name in NAMES)
    rules = {
        "default-src": "'self'",
        "script-src": f"'self' blob: {' '.join(_hashes())}",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": f"'self' {sockets}",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "frame-src": "'none'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashes() -> Iterator[str]:
    """Of the inline scripts of Streamlit's page, which their hashes let run."""
    page = Path(st.__file__).with_name("static") / "index.html"
    for script in re.findall(r"<script>(.*?)</script>", page.read_text(encoding="utf-8"), re.S):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        yield f"'sha256-{digest}'"


class Headers:
    """Adds headers to every answer."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self.app, self.headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        await self.app(scope, receive, with_headers)
