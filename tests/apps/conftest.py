"""One server of the pages, started by the real command from a folder that has an `apps/` and a
`data/` of its own, and one Chromium, for all tests of the pages."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests import toy_index as toy
from tests.apps import hostile, toy_graph
from tests.apps.compared_runs import compare
from tests.conftest import ROOT

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
]
BROKEN = "raise ImportError('the folder of the user shadows the installed package')\n"


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """(address, run folder) of a server started in a hostile folder."""
    root = tmp_path_factory.mktemp("real")
    run = toy.make_run(root / "runs" / "toy")
    hostile.make_run(root / "runs" / "wicked")
    compare(run, toy.make_run(root / "runs" / "twin"))
    toy_graph.make(root / "runs" / "graph")
    young = root / "runs" / "young"  # its training has begun
    young.mkdir()
    (young / "config.yaml").write_text("sparsify: topk\nk: 3\ntokens: 1000\n")
    (young / "metrics.jsonl").write_text('{"tokens": 10, "fvu": 0.9}\n')
    for package in ("apps", "training", "saelab", "data"):
        (root / package).mkdir()
        (root / package / "__init__.py").write_text(BROKEN)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # -P keeps the current folder off sys.path, as the installed `saelab` script does.
    start = [sys.executable, "-P", "-c", "import sys; from apps.cli import main; sys.exit(main())"]
    paths = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).strip(
        os.pathsep
    )
    log = (root / "log").open("w+")
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [*start, "browse", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(server, address, root / "log")
        yield address, run
    finally:
        server.terminate()
        server.wait(10)
        log.close()


def _wait_until_healthy(server, address, log):
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def browser():
    """A real Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


VIEW = {"width": 1400, "height": 1000}


@pytest.fixture(scope="session")
def guarded(browser):
    """A browser as users have it, which pages share so that the app's files are fetched once."""
    return browser.new_context(viewport=VIEW)


@pytest.fixture(scope="session")
def unguarded(browser):
    """A browser that heeds no content security policy."""
    return browser.new_context(viewport=VIEW, bypass_csp=True)


@pytest.fixture
def page(guarded, served):
    """A page of the first that ends without an alarm."""
    page = watched(guarded.new_page())
    yield page
    assert page.alarms == []
    page.close()


@pytest.fixture
def bare(unguarded, served):
    """A page of the second, likewise."""
    page = watched(unguarded.new_page())
    yield page
    assert page.alarms == []
    page.close()


def watched(page):
    """The page, which from now on records where its requests go, the dialogs and errors that
    scripts raise, and what the security policy stops."""
    page.hosts, page.alarms = set(), []
    page.on(
        "request",
        lambda request: page.hosts.add(re.match(r"(blob:)?\w+:(//)?([^/]*)", request.url)[3]),
    )
    page.on("dialog", lambda dialog: (page.alarms.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: page.alarms.append(str(error)))
    page.on("console", lambda message: page.alarms.extend(refusals(message)))
    page.set_default_timeout(60_000)
    return page


def refusals(message):
    """What the pages' own security policy kept the browser from, as its console says."""
    return [message.text] if "Content Security Policy" in message.text else []
