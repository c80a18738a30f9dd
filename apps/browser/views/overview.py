"""The run at a glance: what it is, how good it is, how training went, how its features are
spread."""

import streamlit as st

from apps.browser import charts, dark_matter, draw, load, state, supervised, tables

QUIET = {"displayModeBar": False}

name, folder = state.run()
sae, report, rows = (
    load.document(folder, "sae/sae.json"),
    load.document(folder, "report.json"),
    load.curves(folder),
)
state.html(tables.about(name, sae))
state.html(tables.report(report, str(folder)))
if dark := load.document(folder, "dark-matter.json"):
    state.html(dark_matter.section(dark))
for path in sorted(folder.glob("supervise-*.json")):
    state.html(supervised.section(load.document(folder, path.name)))
if figure := charts.curves(rows):
    state.html("<h2>Training <small>over tokens</small></h2>")
    st.plotly_chart(figure, config=QUIET, key="curves")
opened = state.index(name, folder)
summary, density_F = opened.summary, opened.densities()
state.html(tables.indexed(summary))
left, right = st.columns(2)
if (density_F > 0).any():
    with left:
        state.html("<h2>Density <small>of live features</small></h2>")
        st.plotly_chart(charts.densities(density_F), config=QUIET, key="densities")
for number, other in enumerate(summary["others"]):
    with right:
        state.html(f"<h2>Best match in {draw.text(other['name'])}</h2>")
        figure = charts.cosines(
            opened.cosines(number)[density_F > 0], other["null"], other["threshold"]
        )
        st.plotly_chart(figure, config=QUIET, key=f"cosines{number}")
