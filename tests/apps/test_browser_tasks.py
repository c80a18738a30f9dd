"""What a researcher does in the app, in a real Chromium, and in how many clicks."""

import pytest

from saelab.features.annotations import Annotations, identity
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy
from tests.apps.conftest import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM, reason="no Chromium: install Debian's chromium or set CHROMIUM"
    ),
]
MOST = 4  # clicks a task may take


class Hand:
    """Clicks on a page, counted; typing is none."""

    def __init__(self, page) -> None:
        self.page, self.clicks = page, 0

    def click(self, selector: str) -> None:
        self.clicks += 1
        self.page.locator(selector).first.click()

    def done(self) -> None:
        assert 0 < self.clicks <= MOST, self.clicks


def ready(page) -> None:
    """Wait until the script of the page has ended."""
    page.wait_for_selector("[data-test-script-state=notRunning]", state="attached")


@pytest.fixture
def here(served):
    """The served run's annotations, which end with the test."""
    run = served[1]
    with FeatureIndex(run / "features.db") as opened:
        yield Annotations(run / "annotations.db", identity(opened.summary), toy.F)
    for file in run.glob("annotations.db*"):
        file.unlink()


def test_find_a_feature_for_a_concept(page, served):
    hand = Hand(page)
    page.goto(f"{served[0]}/?run=toy")
    with FeatureIndex(served[1] / "features.db") as opened:
        best = opened.search("numpy", ["tokens"])[0].feature
    hand.click("header >> text=Features")
    page.fill("input[aria-label=Search]", "numpy")
    page.keyboard.press("Enter")
    page.wait_for_selector("th:has-text('found')")
    assert "q=numpy" in page.url
    assert page.title() == "“numpy” · toy · saelab"
    hand.click("table.features tbody th a")
    page.wait_for_selector("h1:has-text('Feature')")
    first = int(page.locator("h1").inner_text().split()[1])
    assert first == best
    hand.done()


def test_judge_a_feature(page, served):
    hand = Hand(page)
    page.goto(f"{served[0]}/feature?run=toy&feature=3")
    page.wait_for_selector("h1:text-is('Feature 3')")
    for part in ("Top contexts", "Output tokens", "Activations", "Nearest features"):
        page.locator(f"h2:has-text('{part}')").wait_for()
    few = page.locator("details.example").count()
    hand.click("text=more contexts")
    page.wait_for_selector("text=fewer")
    assert page.locator("details.example").count() > few
    hand.click("details.example summary .peak-value")
    assert page.locator("details.example .whole").first.is_visible()
    assert "context" in page.locator("details.example .where").first.inner_text()
    hand.click("summary:has-text('Strongest tokens by mean')")
    page.wait_for_selector("th:has-text('mean')")
    hand.done()


def test_label_star_and_note_a_feature_and_find_it_again(page, served, here):
    hand = Hand(page)
    page.goto(f"{served[0]}/feature?run=toy&feature=7")
    page.wait_for_selector("h1:text-is('Feature 7')")
    page.fill("input[aria-label=Label]", "closing brackets")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1 .label:text-is('closing brackets')")
    hand.click("label:has-text('star')")
    ready(page)
    hand.click("button:has-text('note')")
    page.fill("textarea[aria-label=Note]", "fires on )")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=Latest changes")
    page.keyboard.press("Escape")
    page.goto(f"{served[0]}/features?run=toy&q=closing")
    page.wait_for_selector("td:text-is('closing brackets')")
    assert page.locator(".star").count() == 1
    said = here.of(7)
    assert (said.label, said.note, said.starred) == ("closing brackets", "fires on )", True)
    hand.done()


def test_two_browsers_label_at_once(browser, served, here):
    pages = [browser.new_context().new_page() for _ in range(2)]
    for number, page in enumerate(pages):
        page.goto(f"{served[0]}/feature?run=toy&feature={number}")
    for number, page in enumerate(pages):
        page.wait_for_selector(f"h1:text-is('Feature {number}')")
        page.fill("input[aria-label=Label]", f"label {number}")
    for page in pages:
        page.keyboard.press("Enter")
    for number, page in enumerate(pages):
        page.wait_for_selector(f"h1 .label:text-is('label {number}')")
        page.context.close()
    assert here.labels() == {0: "label 0", 1: "label 1"}


def test_links_and_keyboard(page, served):
    with FeatureIndex(served[1] / "features.db") as opened:
        order = opened.order("density").tolist()
    page.goto(f"{served[0]}/feature?run=toy&feature={order[0]}&sort=density")
    page.wait_for_selector(f"h1:text-is('Feature {order[0]}')")
    page.wait_for_selector(".histogram i")
    assert page.title() == f"Feature {order[0]} · toy · saelab"
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"h1:text-is('Feature {order[1]}')")
    assert f"feature={order[1]}" in page.url and "sort=density" in page.url
    page.go_back()
    page.wait_for_selector(f"h1:text-is('Feature {order[0]}')")
    summary = page.locator("details.example summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.example .whole").first.is_visible()
    names = page.locator("thead th:not([scope=col]), tbody th:not([scope=row])")
    assert names.count() == 0
    assert page.locator(".histogram[role=img][aria-label]").count() == 1


def test_the_theme_is_the_browser_s(browser, served):
    grounds = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 820, "height": 900})
        page = context.new_page()
        page.goto(f"{served[0]}/feature?run=toy&feature=3")
        page.wait_for_selector(".sl h1")
        colour = "element => getComputedStyle(element).{}"
        ink = page.locator(".sl h1").evaluate(colour.format("color"))
        app = page.locator(".stApp").evaluate(colour.format("backgroundColor"))
        grounds[scheme] = (ink, app)
        wide = "document.querySelector('.stMain').scrollWidth - innerWidth"
        assert page.evaluate(wide) <= 0, "820 px are wide enough"
        context.close()
    assert grounds["light"] == ("rgb(31, 41, 51)", "rgb(255, 255, 255)")
    assert grounds["dark"] == ("rgb(228, 232, 237)", "rgb(18, 22, 28)")
