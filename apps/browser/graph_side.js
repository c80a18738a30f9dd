// What stands beside a graph: the chosen node with its links, why its head attends where it does,
// and what is pinned and grouped. Put before graph.js, which calls `beside`.

const KINDS = {
  feature: "feature", error: "error", token: "token", logit: "output", head: "head", mlp: "MLP",
};
const SHOWN = 14; // links in each list

const element = (tag, text, fields = {}) =>
  Object.assign(document.createElement(tag), { textContent: text }, fields);
const quiet = (text) => element("p", text, { className: "quiet" });

// view: data, nodes, inputs and outputs (links by node), state, side (the element), named(node),
// show(), changed(), picked(name of a head). Gives choose(i), which shows a node (null: the overview).
function beside(view) {
  const { data, nodes, state, side, named } = view;
  const where = (node) => `${data.rows[node.row] ?? ""} ${data.columns[node.at] ?? ""}`.trim();

  function title(node) {
    if (!node.page) return element("b", `${KINDS[node.kind]} ${named(node)}`);
    const link = element("a", named(node), { href: node.page });
    link.dataset.page = "feature";
    return link;
  }

  function row(number, text, act) {
    const button = element(act ? "button" : "div", number === null ? text : "", { className: "graph-row" });
    if (act) { button.type = "button"; button.onclick = act; }
    if (number !== null) button.append(element("span", number, { className: "n" }), element("span", text));
    return button;
  }

  function list(name, some, other) {
    const box = element("div", "");
    box.append(element("h2", name));
    const strongest = [...some].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])).slice(0, SHOWN);
    for (const link of strongest) {
      const end = nodes[other(link)];
      const part = link[3] ? ` (${link[3]})` : ""; // of a head's input: its query, key or value
      box.append(row(link[2].toPrecision(3), `${where(end)} · ${named(end)}${part}`, () => choose(other(link))));
    }
    if (!some.length) box.append(quiet("none"));
    return box;
  }

  // The heads that write most at the node's position, and which pairs of nodes make the first of
  // them attend where it does.
  function attention({ edges, pairs, score, rest }, node) {
    const box = element("div", "", { className: "graph-attends" });
    const word = (at) => `${data.columns[at]} (${at})`;
    box.append(element("h2", "attends"));
    for (const [layer, head, src, share, weight] of edges) {
      const told = `a${layer}.h${head} ${word(node.at)} → ${word(src)}, ${(100 * share).toFixed(0)}% of its attention`;
      box.append(row(weight.toPrecision(3), told, () => view.picked(`a${layer}.h${head}`)));
    }
    const [layer, head, src] = edges[0];
    box.append(element("h2", `why a${layer}.h${head} → ${data.columns[src]}`));
    box.append(quiet(`score ${score} before the softmax, its strongest pairs: query × key; ${rest} is in no pair of nodes`));
    const end = (i) => nodes[i] ?? data.others[i - nodes.length];
    const ref = (i) => `${where(end(i))} · ${i < nodes.length ? named(end(i)) : end(i).text}`;
    for (const [query, key, part] of pairs) {
      const act = query < nodes.length ? () => choose(query) : null;
      box.append(row(part.toPrecision(3), `${ref(query)} × ${ref(key)}`, act));
    }
    return box;
  }

  function choose(i) {
    state.chosen = i; side.replaceChildren();
    if (i === null) { overview(); view.show(); return; }
    const node = nodes[i], head = element("div", "");
    const place = data.columns[node.at] === undefined ? "" : `, ${data.columnName} ${data.columns[node.at]} (${node.at})`;
    head.append(title(node), quiet(`${KINDS[node.kind]} at ${data.rows[node.row]}${place}`));
    if (node.value !== null) head.append(element("p", `${data.valueName} ${node.value}`));
    if (data.editable) head.append(...marking(node, i));
    side.append(head, list("from", view.inputs[i], (link) => link[0]), list("to", view.outputs[i], (link) => link[1]));
    if (data.attended[i]) side.append(attention(data.attended[i], node));
    if (node.kind === "error") head.append(quiet("what the dictionary misses here"));
    view.show();
    if (node.kind === "head") view.picked(node.id);
  }

  function marking(node, i) {
    const name = element("input", "", { value: state.names[node.id] ?? "", placeholder: "name it", ariaLabel: "name of the node" });
    name.onchange = () => { state.names[node.id] = name.value; if (!name.value) delete state.names[node.id]; view.changed(); };
    const pin = element("button", state.pinned.has(node.id) ? "unpin" : "pin", { type: "button" });
    pin.onclick = () => toggle(i);
    return [name, pin];
  }

  function overview() {
    const box = element("div", "");
    if (!data.editable) { box.append(quiet(data.hint)); side.replaceChildren(box); return; }
    box.append(element("h2", "Pinned"));
    const pinned = nodes.map((node, i) => [node, i]).filter(([node]) => state.pinned.has(node.id));
    for (const [node, i] of pinned) box.append(row(null, named(node), () => choose(i)));
    if (!pinned.length) box.append(quiet("none yet: shift-click nodes"));
    const group = element("input", "", { placeholder: "group the pinned as", ariaLabel: "name of the group" });
    group.onchange = () => {
      if (!group.value || !pinned.length) return;
      state.groups.push([group.value, ...pinned.map(([node]) => node.id)]);
      state.pinned.clear(); view.changed(); overview();
    };
    box.append(group, element("h2", "Groups"));
    state.groups.forEach(([label, ...members], n) => {
      const dissolve = row(null, `${label} (${members.length}) ×`, () => { state.groups.splice(n, 1); view.changed(); overview(); });
      dissolve.title = "click: dissolve";
      box.append(dissolve);
    });
    if (!state.groups.length) box.append(quiet("none yet"));
    side.replaceChildren(box);
  }

  function toggle(i) {
    const { id } = nodes[i];
    state.pinned.has(id) ? state.pinned.delete(id) : state.pinned.add(id);
    view.changed(); choose(i);
  }

  return { choose, toggle };
}
