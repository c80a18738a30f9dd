"""Nobody is let in: the server answers this machine's own names alone, its pages load nothing from
elsewhere, and what files say never becomes markup."""

import http.client
from urllib.parse import urlsplit

import pytest

from tests.apps.conftest import CHROMIUM
from tests.apps.hostile import IMAGE

pytestmark = pytest.mark.browser
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "streamlit",
}


def answer(address: str, path: str, **headers: str) -> http.client.HTTPResponse:
    """What the server answers to a request with these headers."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/_stcore/health", "/_stcore/host-config", "/static/x.js"])
def test_a_page_of_another_name_gets_no_answer(served, path: str):
    address, _ = served
    port = urlsplit(address).port
    for host in (f"evil.example:{port}", "127.0.0.1.evil.example", "evil.example"):
        assert answer(address, path, Host=host).status == 400
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert answer(address, path, Host=host).status in (200, 404)


def test_a_page_of_another_name_gets_no_websocket(served):
    address, _ = served
    port = urlsplit(address).port
    own, evil = f"127.0.0.1:{port}", f"evil.example:{port}"
    for host, origin, status in ((own, own, 101), (evil, evil, 400), (own, evil, 403)):
        headers = {**UPGRADE, "Host": host, "Origin": f"http://{origin}"}
        assert answer(address, "/_stcore/stream", **headers).status == status


def test_every_answer_says_what_its_page_may_load(served):
    headers = answer(served[0], "/").headers
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy["script-src"] and policy["img-src"] == "'self' data: blob:"
    assert headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"


@needs_chromium
def test_what_files_say_makes_no_element(bare, served):
    """Without the policy, so that it is the escaping that holds."""
    bare.route("**/*.invalid/**", lambda route: route.abort())
    bare.goto(f"{served[0]}/circuits")
    bare.wait_for_selector("h2:has-text('Agreement')")
    assert IMAGE in bare.locator("h2:has-text('Agreement')").text_content()
    assert bare.locator(".sl img").count() == 0
    assert "stranger.invalid" not in bare.hosts and bare.evaluate("window.pwned") is None


@needs_chromium
def test_the_policy_stops_what_is_injected_nevertheless(page, served):
    page.goto(served[0])
    page.wait_for_selector(".sl h1")
    page.evaluate("html => { document.querySelector('.sl').innerHTML += html }", IMAGE)
    page.evaluate("fetch('http://stranger.invalid/').catch(() => 0)")
    page.wait_for_timeout(500)
    assert page.evaluate("window.pwned") is None
    for rule in ("img-src", "connect-src", "script-src"):  # the image, the call, its handler
        assert any(rule in alarm and "blocked" in alarm for alarm in page.alarms), rule
    page.alarms.clear()


@needs_chromium
def test_no_frame_holds_a_page(page, served):
    page.set_content(f"<iframe src='{served[0]}'></iframe>")
    page.wait_for_timeout(1000)
    assert "frame-ancestors" in page.alarms[0]
    page.alarms.clear()


@needs_chromium
def test_a_damaged_file_is_told_in_one_line(page, served):
    for place, words in (
        ("?run=wicked", "report.json is damaged"),
        ("circuits?circuit=wicked-bare", "This page cannot be shown: KeyError: 'method'"),
    ):
        page.goto(f"{served[0]}/{place}")
        page.wait_for_selector("p.empty")
        assert words in page.locator("p.empty").inner_text()
        assert "Traceback" not in page.content()


@needs_chromium
def test_a_page_number_that_is_none_shows_the_first(page, served):
    for number in ("abc", "-1", "1e9", "9" * 30):
        page.goto(f"{served[0]}/features?run=toy&page={number}")
        page.wait_for_selector(".sl")
        assert page.locator("[data-testid=stException]").count() == 0
