"""A language model behind an OpenAI-compatible address: one question, one answer, bounded in time,
size and tries."""

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from saelab.errors import FailedRun, UsageError

TRIES = 4  # of a question that is turned away for now
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
LONGEST_WAIT = 30.0  # seconds between two tries
MOST_BYTES = 4_000_000  # of an answer
MOST_TOKENS = 400


class Endpoint(NamedTuple):
    """Where to ask.

    Endpoint("http://127.0.0.1:8000/v1", "qwen").ask("Be brief.", "What is 1 + 1?")
    """

    url: str
    """such as http://127.0.0.1:8000/v1"""
    model: str
    """name of the model there"""
    key: str = ""
    """sent as the bearer token, if any"""
    timeout: float = 60.0
    """seconds until an answer must have come whole"""
    wait: Callable[[float], object] = time.sleep
    """how tries are spaced"""

    def check(self) -> None:
        """Raise UsageError for an address that cannot be asked; sends nothing."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--endpoint {self.url}: give an address such as http://host:8000/v1")
        if not self.model:
            raise UsageError("--endpoint needs --model-name, the model's name there")

    def ask(self, system: str, question: str) -> str:
        """The answer's text. Raises FailedRun where none comes: in time, of a status, of a form
        that it should have."""
        messages = [("system", system), ("user", question)]
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in messages],
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
        }
        said = ""
        for number in range(TRIES):
            try:
                return _content(self._post(body), self.url)
            except _Later as later:
                said = later.why
                if number < TRIES - 1:
                    self.wait(min(later.after or 2.0**number, LONGEST_WAIT))
        raise FailedRun(f"{self.url} {said}, {TRIES} times: try later, or another --endpoint")

    def _post(self, body: dict[str, Any]) -> bytes:
        url = self.url.rstrip("/")
        url = url if url.endswith("/chat/completions") else f"{url}/chat/completions"
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        started = time.monotonic()
        try:
            with _OPENER.open(request, timeout=self.timeout) as response:
                return self._read(response, started)
        except urllib.error.HTTPError as error:
            with contextlib.closing(error):
                raise self._turned_away(error) from None
        except TimeoutError:
            raise self._late() from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            why = getattr(error, "reason", error)
            if isinstance(why, TimeoutError):
                raise self._late() from None
            raise _Later(f"could not be reached ({why or type(error).__name__})") from None

    def _read(self, response: Any, started: float) -> bytes:
        """The whole answer. A server that sends a byte now and then is late as well."""
        pieces, n_bytes = [], 0
        while piece := response.read1(65536):
            pieces.append(piece)
            n_bytes += len(piece)
            if n_bytes > MOST_BYTES:
                raise FailedRun(f"{self.url} answered more than {MOST_BYTES:,} bytes")
            if time.monotonic() - started > self.timeout:
                raise self._late()
        return b"".join(pieces)

    def _late(self) -> FailedRun:
        return FailedRun(
            f"{self.url} did not answer within {self.timeout:g} s: --timeout gives it longer"
        )

    def _turned_away(self, error: urllib.error.HTTPError) -> Exception:
        said = f"answered {error.code} ({error.reason})"
        if error.code in AGAIN:
            after = str(error.headers.get("Retry-After", ""))
            return _Later(said, float(after) if after.isdecimal() else None)
        if error.code in (401, 403):
            said += ": it wants another key"
        elif 300 <= error.code < 400:
            said += ": it sends elsewhere, which is not followed; name that address"
        return FailedRun(f"{self.url} {said}")


class _Later(Exception):
    """A question that may be asked again."""

    def __init__(self, why: str, after: float | None = None) -> None:
        self.why, self.after = why, after


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the key and the texts are for the address that was named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Nowhere."""
        return None


_OPENER = urllib.request.build_opener(_Stay)


def _content(answer: bytes, url: str) -> str:
    """The text of an answer. Raises FailedRun for one of another form."""
    try:
        text = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        begins = answer[:80].decode("utf-8", "replace")
        raise FailedRun(
            f"{url} answered no chat completion ({type(error).__name__}), but {begins!r}"
        ) from None
    if not isinstance(text, str):
        raise FailedRun(f"{url} answered a {type(text).__name__} instead of a text")
    return text
