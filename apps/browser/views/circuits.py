"""A circuit: which heads or features carry a task, how well that agrees with the truth, how
faithful the best are alone."""

import streamlit as st

from apps.browser import charts, circuit, draw, load, state

QUIET = {"displayModeBar": False}
ROWS = 20  # edges shown

found = load.circuits()
if not found:
    state.stop(
        "No circuits here yet: <code>saelab circuits --task ioi --out runs/ioi</code> makes one."
    )
name = st.query_params.get("circuit", next(iter(found)))
if name not in found:
    state.stop(
        f"There is no circuit <code>{draw.text(name)}</code>; there are {', '.join(map(draw.text, found))}."
    )
if len(found) > 1:
    state.html(circuit.menu(list(found), name))
shown = load.document(found[name], "circuit.json")
state.html(circuit.about(shown))
by_feature = "nodes" in shown
left, right = st.columns(2, gap="medium")
with left:
    if shown["heads"]:
        meaning = (
            "summed |effect| of the features through each"
            if by_feature
            else "scores; orange helps the task"
        )
        state.html(f"<h2>Heads <small>{meaning}</small></h2>")
        st.plotly_chart(charts.heads(shown["heads"]), config=QUIET, key="heads")
    what = (
        "best nodes kept (green), removed (blue); 0: all at their mean"
        if by_feature
        else "best heads kept, rest resampled"
    )
    state.html(f"<h2>Faithfulness <small>{what}; 95% over prompts</small></h2>")
    curve = charts.faithfulness(
        shown["faithfulness"], "nodes" if by_feature else "heads", shown.get("completeness", ())
    )
    st.plotly_chart(curve, config=QUIET, key="faithfulness")
    if by_feature:
        state.html(circuit.agreement(shown) + circuit.edges(shown["edges"][:ROWS]))
with right:
    if by_feature:
        names = {str(folder): name for name, folder in load.runs().items()}
        state.html(circuit.nodes(shown, names, 2 * ROWS))
    else:
        state.html(circuit.agreement(shown) + circuit.edges(shown["edges"][:ROWS]))
