// An attribution graph on a canvas. Layers go upward, positions from left to right. Threshold, hover
// and selection stay in the page; what is pinned, named and grouped is handed over to be saved.
//
// data: nodes {id, row, at, kind, share, value, text, page}, links [source, target, weight] as
// indices, rows (names of the layers, lowest first), tokens, pinned, groups, names, saved.

const KINDS = { feature: "feature", error: "error", token: "token", logit: "output" };
const SHOWN = 14; // links in each list beside the graph
const WIDEST = 3; // px of a link
const HURRIED = 1500; // links drawn while something moves, the strongest; all once it rests
const REST = 150; // ms
const MARGIN = { left: 64, right: 12, top: 14, bottom: 46 };

const html = `
  <div class="graph-tools">
    <label>influence kept <input type="range" class="kept" min="0.05" max="1" step="0.01"></label>
    <output class="kept-told"></output>
    <label>links <input type="range" class="linked" min="0" max="1" step="0.01"></label>
    <output class="linked-told"></output>
    <span class="quiet">click: links of a node; shift-click: pin; wheel: zoom; drag: move</span>
  </div>
  <div class="graph-body">
    <div class="graph-canvas"><canvas role="img" tabindex="0"></canvas><div class="graph-tip"></div></div>
    <div class="graph-side"></div>
  </div>`;

export default function ({ data, parentElement, setTriggerValue }) {
  const host = parentElement.querySelector(".graph") ?? parentElement;
  if (host.drawn === data.key) return;
  host.drawn = data.key;
  host.innerHTML = html;
  const find = (name) => host.querySelector(name);
  const canvas = find("canvas"), tip = find(".graph-tip"), side = find(".graph-side");
  const kept = find(".kept"), linked = find(".linked");
  const state = {
    pinned: new Set(data.pinned), groups: data.groups.map((group) => [...group]),
    names: { ...data.names }, chosen: null, over: null, zoom: 1, dx: 0, dy: 0,
  };
  const { nodes } = data, links = [...data.links].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
  const largest = Math.max(1e-12, ...links.map((link) => Math.abs(link[2])));
  const inputs = nodes.map(() => []), outputs = nodes.map(() => []);
  links.forEach((link) => { outputs[link[0]].push(link); inputs[link[1]].push(link); });
  kept.value = data.share;
  linked.value = Math.min(1, 3000 / Math.max(1, links.length));
  canvas.setAttribute("aria-label", data.label);

  const named = (node) => state.names[node.id] ?? node.text;
  // A canvas knows no variables: what they are now, in this theme, is asked of an element.
  const probe = host.appendChild(document.createElement("i"));
  const inks = {};
  const colour = (name) => inks[name];
  function mix() {
    for (const name of ["--positive", "--negative", "--yes", "--link", "--soft", "--line", "--ink"]) {
      probe.style.color = `var(${name})`;
      inks[name] = getComputedStyle(probe).color;
    }
  }
  const shown = (node) => node.kind === "token" || node.kind === "logit"
    || state.pinned.has(node.id) || node.share <= +kept.value;

  // --- where nodes stand ---------------------------------------------------------------------------

  let place = [], width = 0, height = 0, visible = [], lines = [];

  function lay() {
    width = find(".graph-canvas").clientWidth;
    height = Math.max(420, 44 * data.rows.length + MARGIN.top + MARGIN.bottom);
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio; canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    visible = nodes.map(shown);
    const cells = new Map();
    nodes.forEach((node, i) => {
      if (!visible[i]) return;
      const key = `${node.row},${node.at}`;
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(i);
    });
    const widest = data.tokens.map((_, at) => Math.max(1, ...data.rows.map(
      (_, row) => cells.get(`${row},${at}`)?.length ?? 0)));
    const total = widest.reduce((sum, n) => sum + Math.sqrt(n) + 0.6, 0);
    const unit = (width - MARGIN.left - MARGIN.right) / total;
    const step = (height - MARGIN.top - MARGIN.bottom) / Math.max(1, data.rows.length - 1);
    place = []; lay.columns = [];
    let x = MARGIN.left;
    data.tokens.forEach((_, at) => {
      const wide = (Math.sqrt(widest[at]) + 0.6) * unit;
      lay.columns.push([x, wide]);
      data.rows.forEach((_, row) => {
        const mine = cells.get(`${row},${at}`) ?? [];
        mine.forEach((i, n) => {
          const aside = mine.length > 1 ? (n % 3 - 1) * 9 : 0;
          place[i] = [x + wide * (n + 0.5) / mine.length, height - MARGIN.bottom - row * step + aside];
        });
      });
      x += wide;
    });
    lines = links.slice(0, Math.ceil(linked.value * links.length))
      .filter(([a, b]) => visible[a] && visible[b]);
    find(".kept-told").value = `${visible.filter(Boolean).length} of ${nodes.length} nodes`;
    find(".linked-told").value = `${lines.length} of ${links.length} links`;
  }

  const at = (i) => [place[i][0] * state.zoom + state.dx, place[i][1] * state.zoom + state.dy];
  const radius = (node) => node.kind === "feature" ? 2.5 + 5 * Math.sqrt(node.own) : 4;

  // --- drawing -------------------------------------------------------------------------------------

  // Links are drawn once into a picture; only what hangs on the pointer is drawn anew with it.
  const picture = document.createElement("canvas");
  let resting = true, clock = 0;

  // Draw at once what is quick to draw, and the rest when nothing has moved for a while.
  function hurry(work) {
    resting = false;
    soon(work);
    clearTimeout(clock);
    clock = setTimeout(() => { resting = true; paint(); }, REST);
  }

  function paint() {
    mix();
    picture.width = canvas.width; picture.height = canvas.height;
    const pen = picture.getContext("2d"), ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "12px system-ui, sans-serif";
    rows(pen);
    const bins = new Map();
    for (const line of resting ? lines : lines.slice(0, HURRIED)) {
      const bin = `${line[2] > 0 ? 1 : -1},${Math.ceil(6 * Math.sqrt(Math.abs(line[2]) / largest))}`;
      if (!bins.has(bin)) bins.set(bin, []);
      bins.get(bin).push(line);
    }
    for (const [bin, some] of bins) {
      const [sign, level] = bin.split(",").map(Number);
      pen.strokeStyle = colour(sign > 0 ? "--positive" : "--negative");
      pen.globalAlpha = 0.08 + 0.6 * level / 6;
      pen.lineWidth = Math.max(0.6, WIDEST * level / 6);
      strokes(pen, some);
    }
    pen.globalAlpha = 1;
    nodes.forEach((node, i) => visible[i] && mark(pen, node, i));
    show();
  }

  function rows(pen) {
    const step = (height - MARGIN.top - MARGIN.bottom) / Math.max(1, data.rows.length - 1);
    pen.fillStyle = colour("--soft"); pen.strokeStyle = colour("--line"); pen.lineWidth = 1;
    data.rows.forEach((name, row) => {
      const y = (height - MARGIN.bottom - row * step) * state.zoom + state.dy;
      pen.beginPath(); pen.moveTo(MARGIN.left - 4, y); pen.lineTo(width, y); pen.stroke();
      pen.fillText(name, 4, y + 4);
    });
    pen.save(); pen.textAlign = "center";
    data.tokens.forEach((token, i) => {
      const [x, wide] = lay.columns[i];
      const fit = Math.max(1, Math.floor(wide * state.zoom / 7));
      const text = token.replace(/\n/g, "↵").replace(/^ /, "·");
      pen.fillText(text.length > fit ? `${text.slice(0, Math.max(1, fit - 1))}…` : text,
        (x + wide / 2) * state.zoom + state.dx, height - 12);
    });
    pen.restore();
  }

  function strokes(pen, some) {
    pen.beginPath();
    for (const [from, to] of some) { pen.moveTo(...at(from)); pen.lineTo(...at(to)); }
    pen.stroke();
  }

  function mark(pen, node, i) {
    const [x, y] = at(i), r = radius(node);
    pen.fillStyle = colour(node.kind === "error" ? "--soft" : node.kind === "feature" ? "--yes" : "--link");
    pen.beginPath();
    if (node.kind === "feature") pen.arc(x, y, r, 0, 7);
    else if (node.kind === "error") { pen.moveTo(x, y - r); pen.lineTo(x + r, y); pen.lineTo(x, y + r); pen.lineTo(x - r, y); }
    else pen.rect(x - r, y - r, 2 * r, 2 * r);
    pen.fill();
    if (!state.pinned.has(node.id)) return;
    pen.strokeStyle = colour("--ink"); pen.lineWidth = 1.5; pen.stroke();
    pen.fillStyle = colour("--ink"); pen.fillText(named(node).slice(0, 26), x + r + 3, y + 4);
  }

  function show() {
    const pen = canvas.getContext("2d");
    pen.save(); pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const near = state.over ?? state.chosen;
    pen.globalAlpha = near === null ? 1 : 0.35;
    pen.drawImage(picture, 0, 0); pen.restore();
    if (near === null || !place[near]) return;
    for (const [some, ground] of [[inputs[near], "--positive"], [outputs[near], "--link"]]) {
      pen.strokeStyle = colour(ground);
      for (const [a, b, w] of some) {
        if (!place[a] || !place[b]) continue;
        pen.lineWidth = Math.max(0.8, WIDEST * Math.sqrt(Math.abs(w) / largest));
        pen.setLineDash(w < 0 ? [4, 3] : []);
        pen.beginPath(); pen.moveTo(...at(a)); pen.lineTo(...at(b)); pen.stroke();
        mark(pen, nodes[a], a); mark(pen, nodes[b], b);
      }
    }
    pen.setLineDash([]);
    mark(pen, nodes[near], near);
    const [x, y] = at(near);
    pen.strokeStyle = colour("--ink"); pen.lineWidth = 2;
    pen.beginPath(); pen.arc(x, y, radius(nodes[near]) + 3, 0, 7); pen.stroke();
  }

  function redraw() { lay(); paint(); }

  // --- beside the graph ----------------------------------------------------------------------------

  const element = (tag, text, fields = {}) =>
    Object.assign(document.createElement(tag), { textContent: text }, fields);

  function title(node) {
    if (!node.page) return element("b", `${KINDS[node.kind]} ${named(node)}`);
    const link = element("a", named(node), { href: node.page });
    link.dataset.page = "feature";
    return link;
  }

  function list(name, some, other) {
    const box = element("div", "");
    box.append(element("h2", name));
    const strongest = [...some].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])).slice(0, SHOWN);
    for (const link of strongest) {
      const row = element("button", "", { type: "button", className: "graph-row" });
      row.append(element("span", link[2].toPrecision(3), { className: "n" }),
        element("span", `${data.rows[nodes[other(link)].row]} ${data.tokens[nodes[other(link)].at]} · ${named(nodes[other(link)])}`));
      row.onclick = () => choose(other(link));
      box.append(row);
    }
    if (!some.length) box.append(element("p", "none", { className: "quiet" }));
    return box;
  }

  function choose(i) {
    state.chosen = i; side.replaceChildren();
    if (i === null) { overview(); show(); return; }
    const node = nodes[i], head = element("div", "");
    const where = `${KINDS[node.kind]} at ${data.rows[node.row]}, position ${node.at}`;
    head.append(title(node), element("p", where, { className: "quiet" }));
    if (node.value !== null) head.append(element("p", `value ${node.value}`));
    const name = element("input", "", { value: state.names[node.id] ?? "", placeholder: "name it", ariaLabel: "name of the node" });
    name.onchange = () => { state.names[node.id] = name.value; if (!name.value) delete state.names[node.id]; changed(); };
    const pin = element("button", state.pinned.has(node.id) ? "unpin" : "pin", { type: "button" });
    pin.onclick = () => toggle(i);
    head.append(name, pin);
    side.append(head, list("from", inputs[i], (link) => link[0]), list("to", outputs[i], (link) => link[1]));
    if (node.kind === "error") head.append(element("p", "what the dictionary misses here", { className: "quiet" }));
    show();
  }

  function overview() {
    const box = element("div", "");
    box.append(element("h2", "Pinned"));
    const pinned = nodes.map((node, i) => [node, i]).filter(([node]) => state.pinned.has(node.id));
    for (const [node, i] of pinned) {
      const row = element("button", named(node), { type: "button", className: "graph-row" });
      row.onclick = () => choose(i);
      box.append(row);
    }
    if (!pinned.length) box.append(element("p", "none yet: shift-click nodes", { className: "quiet" }));
    const group = element("input", "", { placeholder: "group the pinned as", ariaLabel: "name of the group" });
    group.onchange = () => {
      if (!group.value || !pinned.length) return;
      state.groups.push([group.value, ...pinned.map(([node]) => node.id)]);
      state.pinned.clear(); changed(); overview();
    };
    box.append(group, element("h2", "Groups"));
    state.groups.forEach(([label, ...members], n) => {
      const row = element("button", `${label} (${members.length}) ×`, { type: "button", className: "graph-row", title: "click: dissolve" });
      row.onclick = () => { state.groups.splice(n, 1); changed(); overview(); };
      box.append(row);
    });
    side.replaceChildren(box);
  }

  function toggle(i) {
    const { id } = nodes[i];
    state.pinned.has(id) ? state.pinned.delete(id) : state.pinned.add(id);
    changed(); choose(i);
  }

  function changed() {
    redraw();
    setTriggerValue("kept", {
      slug: data.slug, pinned: [...state.pinned], groups: state.groups, names: state.names,
    });
  }

  // --- the pointer ---------------------------------------------------------------------------------

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, nearest = 144;
    nodes.forEach((_, i) => {
      if (!visible[i]) return;
      const [px, py] = at(i), far = (px - x) ** 2 + (py - y) ** 2;
      if (far < nearest) { nearest = far; best = i; }
    });
    return best;
  }

  let drag = null, waiting = false;
  const soon = (work) => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; work(); });
  };
  canvas.onpointermove = (event) => {
    if (drag) {
      state.dx += event.clientX - drag[0]; state.dy += event.clientY - drag[1];
      drag = [event.clientX, event.clientY, true];
      hurry(paint); return;
    }
    state.over = under(event);
    const node = state.over === null ? null : nodes[state.over];
    tip.textContent = node ? `${KINDS[node.kind]} ${named(node)}` : "";
    tip.style.display = node ? "block" : "none";
    tip.style.left = `${Math.min(event.offsetX + 12, width - 220)}px`;
    tip.style.top = `${event.offsetY + 14}px`;
    soon(show);
  };
  canvas.onpointerleave = () => { state.over = null; tip.style.display = "none"; show(); };
  canvas.onpointerdown = (event) => { drag = [event.clientX, event.clientY, false]; };
  canvas.onpointerup = (event) => {
    const moved = drag && drag[2]; drag = null;
    if (moved) return;
    const i = under(event);
    if (event.shiftKey && i !== null) toggle(i); else choose(i);
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const by = event.deltaY < 0 ? 1.15 : 1 / 1.15, zoom = Math.min(8, Math.max(1, state.zoom * by));
    state.dx = zoom === 1 ? 0 : event.offsetX - (event.offsetX - state.dx) * zoom / state.zoom;
    state.dy = zoom === 1 ? 0 : event.offsetY - (event.offsetY - state.dy) * zoom / state.zoom;
    state.zoom = zoom; hurry(paint);
  }, { passive: false });
  // Without a pointer the arrow keys walk through the nodes of most influence.
  const order = nodes.map((_, i) => i).filter((i) => nodes[i].kind === "feature")
    .sort((a, b) => nodes[b].own - nodes[a].own);
  canvas.onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || !order.length) return;
    event.preventDefault(); event.stopPropagation();
    choose(order[(Math.max(-1, order.indexOf(state.chosen)) + by + order.length) % order.length]);
  };
  kept.oninput = linked.oninput = () => hurry(redraw);
  const resize = new ResizeObserver(() => soon(redraw));
  resize.observe(find(".graph-canvas"));
  overview(); redraw();
  return () => { resize.disconnect(); clearTimeout(clock); };
}
