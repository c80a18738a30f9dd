"""A circuit: which heads and edges carry a task, how well that agrees with the truth, how faithful the best heads are alone."""

import streamlit as st

from apps.browser import charts, circuit, draw, load, state

QUIET = {"displayModeBar": False}

found = load.circuits()
if not found:
    state.stop("No circuits here yet: <code>saelab circuits --task ioi --out runs/ioi</code> makes one.")
name = st.query_params.get("circuit", next(iter(found)))
if name not in found:
    state.stop(f"There is no circuit <code>{draw.text(name)}</code>; there are {', '.join(map(draw.text, found))}.")
if len(found) > 1:
    state.html(circuit.menu(list(found), name))
shown = load.document(found[name], "circuit.json")
state.html(circuit.about(shown))
left, right = st.columns(2, gap="medium")
with left:
    state.html("<h2>Heads <small>scores; orange helps the task</small></h2>")
    st.plotly_chart(charts.heads(shown["heads"]), config=QUIET, key="heads")
    state.html("<h2>Faithfulness <small>best heads kept, the others resampled; 95% over prompts</small></h2>")
    st.plotly_chart(charts.faithfulness(shown["faithfulness"]), config=QUIET, key="faithfulness")
with right:
    state.html(circuit.agreement(shown) + circuit.edges(shown["edges"][:20]))
