"""The app in a real Chromium."""

import os
import re
import statistics

import pytest

from apps.browser import contexts, draw
from saelab.features.reader import FeatureIndex
from saelab.features.search import AFTER, BEFORE
from tests.apps.conftest import CHROMIUM

# Milliseconds from a click to the next feature's heading and contexts being drawn, measured inside
# the page.
TIMED_CLICK = """(link) => new Promise((done) => {
  const heading = () => document.querySelector("h1")?.textContent;
  const before = heading(), start = performance.now();
  const watch = new MutationObserver(() => {
    if (heading() && heading() !== before && document.querySelector("p.empty, .examples .peak")) {
      watch.disconnect();
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));
    }
  });
  watch.observe(document.body, { childList: true, subtree: true, characterData: true });
  document.querySelector(link).click();
})"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM,
        reason="no Chromium: install Debian's chromium or set CHROMIUM",
    ),
]


def background(locator):
    return locator.evaluate("element => getComputedStyle(element).backgroundColor")


def shade_of(locator):
    """Red, green and blue from 0 to 255, and alpha, as a colour that is mixed is told."""
    red, green, blue, alpha = map(float, re.findall(r"[\d.]+", background(locator)))
    return 255 * red, 255 * green, 255 * blue, alpha


def test_a_feature_opens_by_its_address_with_shaded_tokens(page, served):
    address, run = served
    page.goto(f"{address}/feature?run=toy&feature=3")
    page.wait_for_selector("h1:text-is('Feature 3')")
    page.wait_for_selector("details.example .peak")
    with FeatureIndex(run / "features.db") as opened:
        top = opened.examples(3)[0]
    summary = page.locator("details.example").first.locator("summary")
    peak = summary.locator(".peak")
    assert peak.count() == 1
    assert shade_of(peak) == pytest.approx((242, 139, 32, 0.9), abs=0.01)
    others = [shade_of(span) for span in summary.locator(".act:not(.peak)").all()]
    assert all(other[:3] == pytest.approx((242, 139, 32), abs=0.01) for other in others)
    assert background(summary.locator(".snippet")) == "rgba(0, 0, 0, 0)"
    page.locator("details.example").first.locator("summary .peak-value").click()
    whole = page.locator("details.example").first.locator(".whole")
    assert whole.is_visible()
    first, last = contexts.window(top, BEFORE + AFTER)
    values = [activation for activation in top.activations[first:last] if activation]
    told = whole.inner_text().split("\n")[0]
    assert told.count(" · ") + 1 == len(values) > 1
    assert draw.number(values[0]) in whole.inner_text()


def test_corpus_text_does_not_run(page, served):
    address, run = served
    with FeatureIndex(run / "features.db") as opened:
        rows = opened.search("<script>", ["tokens"])
    script, image = "<script>window.pwned=1</script>", "<img·src=x·onerror=window.pwned=1>"
    for path, shown in (
        (f"feature?run=toy&feature={rows[0].feature}", script),
        ("search?run=toy&q=script", script),
        ("features?run=toy&q=onerror", image),
    ):
        page.goto(f"{address}/{path}")
        page.wait_for_selector(".sl .tok:visible")
        page.wait_for_timeout(300)
        assert page.evaluate("window.pwned") is None
        assert shown in page.locator(".stMain").text_content()
        assert page.locator(".sl script, .sl img").count() == 0


def test_the_alarm_for_running_text_works(bare, served):
    page = bare
    page.goto(served[0])
    page.wait_for_selector(".sl h1")
    page.evaluate("document.querySelector('.sl').innerHTML += '<img src=x onerror=window.pwned=1>'")
    page.wait_for_function("window.pwned === 1")


def test_the_table_sorts_searches_and_leads_to_a_feature(page, served):
    address, run = served
    page.goto(f"{address}/features?run=toy")
    page.wait_for_selector("table.features")
    page.click("table.features th >> text=max")
    page.wait_for_selector("th:has-text('max ↓')")
    with FeatureIndex(run / "features.db") as opened:
        strongest = opened.table("max").rows[0].feature
        found = opened.search("numpy", ["tokens"])[0].feature
    assert page.locator("table.features tbody tr").first.locator("a").inner_text() == str(strongest)
    page.fill("input[aria-label=Search]", "numpy")
    page.keyboard.press("Enter")
    page.wait_for_selector("th:has-text('found')")
    assert "q=numpy" in page.url
    page.locator("table.features tbody tr").first.locator("a").click()
    page.wait_for_selector(f"h1:text-is('Feature {found}')")
    assert page.url == f"{address}/feature?run=toy&feature={found}&q=numpy"
    page.go_back()
    page.wait_for_selector("table.features")
    page.wait_for_selector(".histogram", state="detached")


def test_arrow_keys_step_through_features(page, served):
    with FeatureIndex(served[1] / "features.db") as opened:
        order = opened.order("interest").tolist()
    page.goto(f"{served[0]}/feature?run=toy&feature={order[0]}")
    page.wait_for_selector(f"h1:text-is('Feature {order[0]}')")
    page.wait_for_selector(".histogram i")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f"h1:text-is('Feature {order[-1]}')")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"h1:text-is('Feature {order[0]}')")


def test_the_menu_keeps_the_run_and_the_feature(page, served):
    page.goto(f"{served[0]}/feature?run=toy&feature=7")
    page.wait_for_selector("h1:text-is('Feature 7')")
    page.click("header >> text=Overview")
    page.wait_for_selector("h1:text-is('toy')")
    page.click("header >> text='Feature'")
    page.wait_for_selector("h1:text-is('Feature 7')")
    page.wait_for_url("**/feature?*feature=7*")


def test_nothing_leaves_this_machine(page, served):
    address = served[0]
    for path in (
        "?run=toy",
        "features?run=toy",
        "feature?run=toy&feature=3",
        "search?run=toy&q=cat",
    ):
        page.goto(f"{address}/{path}")
        page.wait_for_selector(".sl")
        page.wait_for_load_state("networkidle")
    assert page.hosts - {""} == {address.removeprefix("http://")}


def test_the_request_recorder_sees_strangers(bare, served):
    page = bare
    page.goto(served[0])
    page.route("**/*.invalid/**", lambda route: route.abort())
    page.evaluate("fetch('http://stranger.invalid/').catch(() => 0)")
    assert "stranger.invalid" in page.hosts


def test_the_next_feature_is_there_within_half_a_second(page, served):
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 2 * cores:
        pytest.skip(
            f"load average {load:.1f} on {cores} cores: other work is too much to time a page"
        )
    page.goto(f"{served[0]}/feature?run=toy&feature=8")
    page.wait_for_selector(".histogram i")
    page.wait_for_timeout(500)
    times = []
    for _ in range(7):
        times.append(page.evaluate(TIMED_CLICK, "a.next"))
        page.wait_for_timeout(300)
    assert statistics.median(times) < 500, times
