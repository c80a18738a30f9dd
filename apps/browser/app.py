"""The script that Streamlit runs. Streamlit gives scripts no package, so the app itself is a module
that is imported from beside `saelab/`."""

from saelab.door import beside

beside("apps.browser.pages").show()
