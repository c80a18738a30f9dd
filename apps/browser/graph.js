// A graph on a canvas: of attributions, or a circuit. Layers go upward, positions (or heads) from
// left to right. Threshold, hover and selection stay in the page; what is pinned, named and grouped
// is handed over to be saved, and a head that is chosen, whose attention the page may show.
//
// data: nodes {id, row, at, kind, share, own, value, text, page}, links [source, target, weight] as
// indices, rows (names of the layers, lowest first), columns, pinned, groups, names; attended: by
// node {edges [layer, head, source, share, weight], pairs [query, key, part], score, rest}, whose
// ends beyond the nodes are in others; editable: whether nodes are pinned, named and grouped.

const WIDEST = 3; // px of a link
const HURRIED = 1500; // links drawn at most while something moves, the strongest; all once it rests
const FEWEST = 100; // of them, however slow the machine
const STEADY = 25; // ms between two frames, above which fewer are drawn
const REST = 150; // ms
const MARGIN = { left: 64, right: 12, top: 14, bottom: 46 };

const html = `
  <div class="graph-tools">
    <label>influence kept <input type="range" class="kept" min="0.05" max="1" step="0.01"></label>
    <output class="kept-told"></output>
    <label>links <input type="range" class="linked" min="0" max="1" step="0.01"></label>
    <output class="linked-told"></output>
    <span class="quiet told"></span>
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
  const counted = (n) => n.toLocaleString("en");
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
  const pins = data.editable ? "shift-click: pin; " : "";
  find(".told").textContent = `click: links of a node; ${pins}wheel: zoom; drag: move`;

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

  // Links are drawn once into a picture; only what hangs on the pointer is drawn anew with it.
  const picture = document.createElement("canvas");

  // --- where nodes stand ---------------------------------------------------------------------------

  let place = [], width = 0, height = 0, visible = [], lines = [];

  // Asking for the width makes the browser lay out the whole page, and a new size makes a canvas
  // anew: both only when the size has changed.
  function measure() {
    width = find(".graph-canvas").clientWidth;
    height = Math.max(420, 44 * data.rows.length + MARGIN.top + MARGIN.bottom);
    const ratio = window.devicePixelRatio || 1;
    for (const each of [canvas, picture]) {
      each.width = width * ratio; each.height = height * ratio;
      each.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    canvas.style.height = `${height}px`;
  }

  function lay() {
    visible = nodes.map(shown);
    const cells = new Map();
    nodes.forEach((node, i) => {
      if (!visible[i]) return;
      const key = `${node.row},${node.at}`;
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(i);
    });
    const widest = data.columns.map((_, at) => Math.max(1, ...data.rows.map(
      (_, row) => cells.get(`${row},${at}`)?.length ?? 0)));
    const total = widest.reduce((sum, n) => sum + Math.sqrt(n) + 0.6, 0);
    const unit = (width - MARGIN.left - MARGIN.right) / total;
    const step = (height - MARGIN.top - MARGIN.bottom) / Math.max(1, data.rows.length - 1);
    place = []; lay.columns = [];
    let x = MARGIN.left;
    data.columns.forEach((_, at) => {
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
    find(".kept-told").value = `${counted(visible.filter(Boolean).length)} of ${counted(nodes.length)} nodes`;
    find(".linked-told").value = `${counted(lines.length)} of ${counted(links.length)} links`;
  }

  const at = (i) => [place[i][0] * state.zoom + state.dx, place[i][1] * state.zoom + state.dy];
  const radius = (node) => node.own === null ? 4 : 2.5 + data.size * Math.sqrt(node.own);

  // --- drawing -------------------------------------------------------------------------------------

  let resting = true, clock = 0, drawn = HURRIED, last = 0;

  // Draw at once what is quick to draw, and the rest when nothing has moved for a while. How much is
  // quick is told by the time from frame to frame.
  function hurry(work) {
    resting = false;
    soon(() => { pace(); work(); });
    clearTimeout(clock);
    clock = setTimeout(() => { resting = true; paint(); }, REST);
  }

  function pace() {
    const now = performance.now(), gap = now - last;
    last = now;
    if (gap > REST) return;
    drawn = Math.min(HURRIED, Math.max(FEWEST, drawn * (gap > STEADY ? 0.7 : 1.1)));
  }

  function paint() {
    if (resting) mix();
    const pen = picture.getContext("2d");
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, sans-serif";
    rows(pen);
    const bins = new Map();
    for (const line of resting ? lines : lines.slice(0, Math.ceil(drawn))) {
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
    if (!resting) squares(pen);
    nodes.forEach((node, i) => visible[i] && (resting || state.pinned.has(node.id)) && mark(pen, node, i));
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
    data.columns.forEach((token, i) => {
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

  const INKS = { error: "--soft", feature: "--yes", head: "--yes" };
  const inkOf = nodes.map((node) => INKS[node.kind] ?? "--link");

  // While something moves nodes are squares, those of one colour together.
  function squares(pen) {
    for (const ink of new Set(inkOf)) {
      pen.fillStyle = colour(ink);
      nodes.forEach((node, i) => {
        if (!visible[i] || inkOf[i] !== ink) return;
        const [x, y] = at(i), r = radius(node);
        pen.fillRect(x - r, y - r, 2 * r, 2 * r);
      });
    }
  }

  function mark(pen, node, i) {
    const [x, y] = at(i), r = radius(node);
    pen.fillStyle = colour(inkOf[i]);
    pen.beginPath();
    if (node.kind === "feature" || node.kind === "head") pen.arc(x, y, r, 0, 7);
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
  function resized() { measure(); redraw(); }

  function changed() {
    redraw();
    setTriggerValue("kept", {
      slug: data.slug, pinned: [...state.pinned], groups: state.groups, names: state.names,
    });
  }

  const picked = (name) => setTriggerValue("picked", name);
  const { choose, toggle } = beside({ data, nodes, inputs, outputs, state, side, named, show, changed, picked });

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
    if (event.shiftKey && i !== null && data.editable) toggle(i); else choose(i);
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const by = event.deltaY < 0 ? 1.15 : 1 / 1.15, zoom = Math.min(8, Math.max(1, state.zoom * by));
    state.dx = zoom === 1 ? 0 : event.offsetX - (event.offsetX - state.dx) * zoom / state.zoom;
    state.dy = zoom === 1 ? 0 : event.offsetY - (event.offsetY - state.dy) * zoom / state.zoom;
    state.zoom = zoom; hurry(paint);
  }, { passive: false });
  // Without a pointer the arrow keys walk through the nodes of most influence.
  const order = nodes.map((_, i) => i).filter((i) => nodes[i].own !== null && nodes[i].kind !== "error")
    .sort((a, b) => nodes[b].own - nodes[a].own);
  canvas.onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || !order.length) return;
    event.preventDefault(); event.stopPropagation();
    choose(order[(Math.max(-1, order.indexOf(state.chosen)) + by + order.length) % order.length]);
  };
  kept.oninput = linked.oninput = () => hurry(redraw);
  const resize = new ResizeObserver(() => soon(resized));
  resize.observe(find(".graph-canvas"));
  resized(); choose(null);
  return () => { resize.disconnect(); clearTimeout(clock); };
}
