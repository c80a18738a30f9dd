"""Runs compared in a real Chromium, each task in at most four clicks."""

import pytest

from tests.apps.conftest import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install Debian's chromium"),
]


def test_two_saes_are_compared(page, served):
    page.goto(served[0])
    page.click("header >> text=Compare")
    page.wait_for_selector("td >> text=worse")
    page.click("a:text-is('contexts') >> nth=0")
    page.wait_for_selector(".examples .peak")
    assert page.locator(".examples").count() == 2
    assert page.hosts - {""} == {served[0].removeprefix("http://")}
