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
    page.locator(".examples").nth(1).wait_for()
    assert page.locator(".examples").count() == 2
    assert page.hosts - {""} == {served[0].removeprefix("http://")}


def test_runs_are_watched_as_they_train(page, served):
    metrics = served[1].parent / "young" / "metrics.jsonl"
    page.goto(f"{served[0]}/?run=toy")
    page.click("header >> text=Runs")
    page.click("a:text-is('none')")
    page.wait_for_selector(".head:has-text('0 of')")
    page.click("a.box[href*=young]")
    page.wait_for_selector(".head:has-text('1 of')")
    points = "document.querySelector('.js-plotly-plot')?.data[0].x.length"
    page.wait_for_function(f"() => {points} >= 1")
    before = page.evaluate(points)
    with metrics.open("a") as file:
        file.write('{"tokens": 20, "fvu": 0.5}\n{"tokens": 30, "fvu": 0.4}\n')
    page.wait_for_function(f"() => {points} === {before + 2}")


def test_a_circuit_is_seen_with_the_prompts_it_comes_from(page, served):
    page.goto(f"{served[0]}/?run=toy")
    page.click("header >> text=Circuits")
    page.wait_for_selector("table.prompts .prompt")
    page.wait_for_selector(".js-plotly-plot .main-svg")
