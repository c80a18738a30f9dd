"""One's own text in a real Chromium: seen in few clicks, steered, its next token attributed."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from saelab import SAE
from saelab.activations import Cache
from saelab.features import build
from saelab.runs import RunFolder
from tests.apps.conftest import CHROMIUM, _wait_until_healthy, watched
from tests.conftest import HOOK, ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM,
        reason="no Chromium: install Debian's chromium or set CHROMIUM",
    ),
]
WORDS = "alpha beta"


@pytest.fixture(scope="module")
def address(tiny_run: Path, tiny_cache: Path, tiny_model: Path, tmp_path_factory):
    """The address of a server on a trained run with an index, and on one whose model is gone."""
    root = tmp_path_factory.mktemp("prompt")
    runs = {name: Path(shutil.copytree(tiny_run, root / "runs" / name)) for name in ("own", "lost")}
    sae = SAE.load(runs["own"])
    from saelab import models

    tokenizer, digest = models.load(tiny_model).tokenizer, RunFolder(runs["own"]).sae_digest()
    index = runs["own"] / "features.db"
    build.build(sae, Cache(tiny_cache), HOOK, index, tokenizer=tokenizer, digest=digest)
    sae.origin = type(sae.origin).from_dict(
        {**sae.origin.to_dict(), "model": {"name": "/models/gone"}, "cache": None}
    )
    shutil.rmtree(runs["lost"] / "sae")
    sae.save(runs["lost"] / "sae")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = "import sys; from apps.cli import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", start, "browse", "runs", "--port", str(port)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    with (root / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_healthy(server, f"http://127.0.0.1:{port}", root / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def tab(guarded):
    """A tab that counts the clicks made in it, and ends without an alarm."""
    page = watched(guarded.new_page())
    page.clicks = 0
    yield page
    assert page.alarms == []
    page.close()


def click(page, selector: str) -> None:
    page.clicks += 1
    page.click(selector)


def test_it_is_seen_on_my_own_text(tab, address):
    tab.goto(f"{address}/prompt?run=own")
    tab.fill("textarea[aria-label=Text]", f"<b>{WORDS}</b>")
    click(tab, "button:has-text('Read')")
    tab.wait_for_selector(".sl .text a.word")  # the model has been loaded meanwhile
    assert tab.locator(".sl .text").first.inner_text() == f"<b>{WORDS}</b>"  # text, no markup
    assert f"text=%3Cb%3E{WORDS.replace(' ', '+')}" in tab.url
    click(tab, ".sl .text a.word >> nth=4")
    tab.wait_for_selector("h2:has-text('Features of l')")
    click(tab, ".sl table.grid tbody tr >> nth=0 >> text=trace")
    tab.wait_for_selector(".sl a:has-text('hide')")
    tab.wait_for_url("**/prompt?*token=5*show=*")
    assert tab.clicks <= 4
    assert f"text=%3Cb%3E{WORDS.replace(' ', '+')}" in tab.url  # which no link repeats
    tab.reload()
    tab.wait_for_selector("h2:has-text('Features of l')")


def test_it_steers(tab, address):
    tab.goto(f"{address}/prompt?run=own&text=alpha&show=3")
    tab.wait_for_selector("button:has-text('Steer')")
    click(tab, "text=steer it")
    tab.wait_for_selector("table.continuations")
    rows = tab.locator("table.continuations tbody tr")
    names = rows.locator("th").all_inner_texts()
    assert names[:3] == ["original", "steered: 3 scale 2", "random direction 1"]
    assert "along feature" in names[-1] and tab.clicks <= 4


def test_nothing_that_changes_the_address_is_pressed_before_it_can_be_followed(tab, address):
    from playwright.sync_api import TimeoutError

    tab.goto(f"{address}/prompt?run=own&text=alpha")
    chip = tab.locator(".chips .chip").first
    chip.click(trial=True)
    tab.evaluate("delete document.documentElement.dataset.links")
    with pytest.raises(TimeoutError):  # its own address is not whole: run and text would be lost
        chip.click(trial=True, timeout=500)
    tab.evaluate("document.documentElement.dataset.links = ''")
    chip.click()
    tab.wait_for_url("**run=own*text=alpha*next_id=*")


def test_a_logit_comes_from_somewhere(tab, address):
    tab.goto(f"{address}/prompt?run=own&text=alpha")
    tab.wait_for_selector(".chips .chip")
    click(tab, ".chips .chip >> nth=0")
    tab.wait_for_selector("h2:has-text('Logit of')")
    values = dict(
        zip(
            tab.locator("dl.stats dt").all_inner_texts(),
            tab.locator("dl.stats dd").all_inner_texts(),
            strict=True,
        )
    )
    parts = [
        float(values[name].replace("−", "-")) for name in ("features", "error", "bias", "rest")
    ]
    logit = float(values["logit"].replace("−", "-"))
    assert sum(parts) == pytest.approx(logit, abs=0.02 * max(map(abs, [logit, *parts])))
    click(tab, "text=exactly, in the frozen model")
    tab.wait_for_selector("text=frozen model: exact")
    assert tab.clicks <= 4


def test_a_feature_is_tried_on_my_text_and_a_lost_model_is_told(tab, address):
    tab.goto(f"{address}/feature?run=own&feature=3")
    tab.fill("textarea[aria-label='My text']", WORDS)
    click(tab, "button:has-text('Test')")
    tab.wait_for_selector("a:has-text('every feature of this text')")
    tab.goto(f"{address}/prompt?run=lost&text=alpha")
    tab.wait_for_selector("p.empty:has-text('/models/gone')")
    tab.locator("input[aria-label*='Where the model lies now']").wait_for()  # one, or it fails
    tab.goto(f"{address}/prompt?run=own&text={'x' * 40}")
    tab.wait_for_selector("p.empty:has-text('the text has 40 tokens')")
