"""A local stand-in for an OpenAI-compatible server: honest, or wrong in a way that is asked for."""

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def honest(system: str, question: str) -> str:
    """Explains by the most frequent marked token, and detects by its text."""
    if "JSON list" not in system:
        marked = Counter(re.findall(r"<<(.*?)>>", question, re.DOTALL))
        return f'"{marked.most_common(1)[0][0].strip()}".'
    described, _, excerpts = question.partition("\n\n")
    word = described.removeprefix("The feature fires on: ")
    parts = re.split(r"Excerpt (\d+):\n", excerpts)[1:]
    told = [int(n) for n, text in zip(parts[::2], parts[1::2], strict=True) if word in text]
    return f"It fires in {json.dumps(told)}"


class StandIn:
    """What the server is asked, and how it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer = honest
        self.statuses: list[int] = []  # of the next answers; then 200
        self.headers: dict[str, str] = {}
        self.raw: bytes | None = None  # instead of a chat completion
        self.hang = 0.0  # seconds before an answer
        self.drip = 0.0  # seconds between its bytes


@contextlib.contextmanager
def serving() -> Iterator[StandIn]:
    """A server on this machine, for the block."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stand_in.asked.append({"path": self.path, **body})
            stand_in.keys.append(self.headers.get("Authorization"))
            time.sleep(stand_in.hang)
            status = stand_in.statuses.pop(0) if stand_in.statuses else 200
            texts = [message["content"] for message in body["messages"]]
            choice = {"message": {"role": "assistant", "content": stand_in.answer(*texts)}}
            whole = stand_in.raw or json.dumps({"choices": [choice]}).encode()
            self.send_response(status)
            for name, value in stand_in.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            with contextlib.suppress(OSError):  # whoever asked may have left
                self._send(whole)

        def _send(self, whole: bytes) -> None:
            for at in range(len(whole)) if stand_in.drip else ():
                self.wfile.write(whole[at : at + 1])
                self.wfile.flush()
                time.sleep(stand_in.drip)
            if not stand_in.drip:
                self.wfile.write(whole)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
