"""Pages of the browser opened without a browser."""

from functools import cache

from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from tests.conftest import ROOT

APP = ROOT / "apps" / "browser" / "app.py"
# Every AppTest reads what all installed packages say of themselves, in search of components, which
# takes forty times as long as a page. What is installed stays the same.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


def opened_page(page: str = "overview", /, **query: str) -> AppTest:
    """The page at an address. Raises AssertionError if the page raised anything."""
    tester = AppTest.from_file(str(APP), default_timeout=120)
    for key, value in query.items():
        tester.query_params[key] = value
    # AppTest.switch_page knows pages that are files only; Streamlit knows them by their address.
    tester._page_hash = calc_hash(page) if page != "overview" else ""
    tester.run()
    assert not tester.exception, tester.exception
    return tester
