"""Text search over the corpus: places where a text stands, and the features at home there."""

from apps.browser import draw, load, state, tables

name, folder = state.run()
opened = state.index(name, folder)
query = state.search_box(name, "text in the corpus").strip()
if not query:
    state.stop(
        f"Type a text to find it in {opened.summary['n_tokens']:,} tokens, and the features that fire around it."
    )
tokens, passages = load.passages(opened, query)
features = load.table(opened, "matches", True, query, 15, 0)
if tokens:
    state.html(f"<h2>Tokens <small>{len(tokens):,}</small></h2><p>{draw.tokens(tokens[:40])}</p>")
if features.rows:
    more = draw.link("features", f"all {features.total:,}", run=name, q=query)
    other = (opened.summary["others"] or [{}])[0]
    body = tables.table(
        features.rows, name, {"sort": "matches", "descending": True, "q": query}, other, links=False
    )
    state.html(f"<h2>Features <small>that match; {more}</small></h2>{body}")
if passages:
    body = "".join(tables.passage(passage, name) for passage in passages)
    state.html(
        f"<h2>Contexts <small>best {len(passages)}, with the features that peak there</small></h2>{body}"
    )
if not (tokens or features.rows or passages):
    state.stop(
        f"<code>{draw.text(query)}</code> is nowhere in the indexed contexts; contexts are searched by three characters or more."
    )
