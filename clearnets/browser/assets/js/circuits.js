// Circuits: a graph per task and family, layers as rows and positions as columns.

const ANSWER = -1;
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

// circuits/wear/native, and where there are several training seeds /seed-1 behind it.
function circuitLink(latents, circuit) {
  const name = `circuits/${circuit.task}/${latents.families[circuit.family]}`;
  return circuit.seed === latents.seeds[0] ? name : `${name}/seed-${circuit.seed}`;
}

function circuitsPage(latents, hash, go) {
  const all = latents.circuits, [, task, family, seed] = hash.split("/");
  const chosen = all.find((c) => circuitLink(latents, c) === hash)
    || all.find((c) => c.task === task && latents.families[c.family] === family)
    || all.find((c) => c.task === task) || all.find((c) => c.done) || all[0];
  if (!chosen) return h("main", { id: "main", tabindex: "-1" }, h("h2", {}, "Circuits"), h("p", { class: "note" }, "This experiment looked for none."));
  // The nearest to what is shown, with one of task, family and seed changed.
  const change = (wanted) => {
    const found = all.filter((c) => Object.entries(wanted).every(([key, value]) => c[key] === value));
    const alike = (c) => ["task", "family", "seed"].filter((key) => c[key] === chosen[key]).length;
    go(circuitLink(latents, found.reduce((best, c) => (alike(c) > alike(best) ? c : best))));
  };
  const select = (key, label, text, parse) => {
    const values = [...new Set(all.map((c) => c[key]))];
    return h("label", {}, label, " ", h("select", { "data-choice": key, onchange: (event) => { change({ [key]: parse(event.target.value) }); document.querySelector(`[data-choice=${key}]`).focus(); } },
      values.map((value) => h("option", { value, selected: value === chosen[key] }, text(value)))));
  };
  const graph = new Graph(latents, chosen);
  const count = h("input", { type: "range", min: Math.min(4, chosen.nodes.length), max: chosen.nodes.length, value: Math.min(12, chosen.nodes.length), "aria-label": "Latents shown",
    oninput: (event) => graph.draw(+event.target.value) });
  graph.draw(+count.value);
  const [right, wrong] = chosen.answers.map((text) => text.trim());
  return h("main", { id: "main", tabindex: "-1" },
    h("h2", {}, "Circuits"),
    h("p", { class: "note" }, "The latents with the largest effects on the answer to a question, at their positions in its prompts. An effect is by how many logits the latent raises the right answer over the wrong one, on the mean of the prompts, which are all worded alike; this is one of them."),
    h("div", { class: "choose" }, select("task", "Question", (t) => t, String), select("family", "Latents", (f) => latents.families[f], Number),
      latents.seeds.length > 1 && select("seed", "Seed", String, Number), h("label", {}, "Show ", count, " ", graph.counted)),
    h("p", { class: "prompt" }, graph.prompt, " → ", h("b", {}, right), h("span", { class: "note" }, `, not ${wrong}`)),
    h("p", { class: "note" }, `${percent(chosen.accuracy)} of the answers are right; the right answer is ahead by ${signed(chosen.whole)} logits, and by ${signed(chosen.none)} with all latents at their mean.`,
      chosen.errors ? ` Of the difference, ${signed(chosen.errors)} is the effect of what the latents leave out (error nodes).` : "",
      chosen.done ? "" : " That is too little to say that the model can do it."),
    h("div", { class: "scroll" }, graph.element),
    h("p", { class: "note" }, "Lines: the strongest links; blue ones raise the right answer, dashed red ones the wrong one. Point to a latent to see its links. ",
      "A latent in bold is in this page: a click leads to it. The others were not drawn to be explained and scored; their sentence is by the same rules."));
}

class Graph {
  constructor(latents, circuit) {
    this.latents = latents;
    this.circuit = circuit;
    this.counted = h("span", { class: "note" });
    this.lines = svg("svg", { class: "lines", "aria-hidden": "true" });
    this.table = h("table", { class: "graph" });
    this.element = h("div", { class: "plane" }, this.lines, this.table);
    this.prompt = h("span", {});
    new ResizeObserver(() => this.link()).observe(this.table);
  }

  draw(count) {
    const { circuit, latents } = this;
    this.shown = circuit.nodes.slice(0, count);
    this.counted.textContent = `${count} of ${circuit.nodes.length} latents`;
    this.chips = new Map();
    const last = circuit.tokens.length - 1, answer = this.answer();
    const places = [...new Set([...this.shown.map((node) => node[1]), last])].sort((a, b) => a - b);
    const row = (name, cell, kind) => h("tr", { class: kind }, h("th", { scope: "row" }, name), places.map((place) => h("td", {}, cell(place))));
    const layers = [...latents.layers].reverse();
    const inLayer = (layer) => (place) => this.shown.map((node, n) => node[0] === layer && node[1] === place ? this.chip(node, n) : null);
    this.table.replaceChildren(
      h("tbody", {}, row("answer", (place) => place === last ? answer : null, "answer"),
        layers.map((layer) => row(`layer ${layer}`, inLayer(layer), this.shown.some((node) => node[0] === layer) ? "" : "idle"))),
      h("tfoot", {}, h("tr", {}, h("td", {}), places.map((place) => h("th", { scope: "col" }, shown(circuit.tokens[place]), h("small", {}, String(place)))))));
    const held = new Set(places);
    this.prompt.replaceChildren(...circuit.tokens.slice(1).map((token, k) => h(held.has(k + 1) ? "u" : "span", { title: `position ${k + 1}` }, token)));
    this.link();
  }

  answer() {
    const chip = h("div", { class: "chip", tabindex: "0" }, h("b", {}, this.circuit.answers[0].trim()), ` over ${this.circuit.answers[1].trim()}`);
    this.chips.set(ANSWER, chip);
    return this.pointed(chip, ANSWER);
  }

  chip([layer, place, latent, effect, row, said], n) {
    const { latents } = this, inPage = row != null;
    const text = (inPage ? latents.get("explanation", row) || latents.reasons[latents.get("status", row)] : said) || "no explanation";
    const chip = h(inPage ? "a" : "div", { class: `chip ${effect < 0 ? "against" : ""}`, href: inPage && `#${latents.link(row)}`, tabindex: inPage ? null : "0",
      title: `latent ${latent} of layer ${layer}, at position ${place}: ${text}`, "--s": Math.abs(effect / this.circuit.nodes[0][3]).toFixed(3) },
      h("span", { class: "head" }, inPage ? h("b", {}, latent) : String(latent), h("span", {}, signed(effect))), h("span", { class: "says" }, text));
    this.chips.set(n, chip);
    return this.pointed(chip, n);
  }

  pointed(chip, n) {
    for (const [event, on] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) {
      chip.addEventListener(event, () => this.point(on ? n : null));
    }
    return chip;
  }

  // Show all links of one latent, and only these; all strong ones for null.
  point(n) { this.at = n; this.link(); }

  link() {
    const box = this.table.getBoundingClientRect();
    if (!box.width) return;
    const there = this.circuit.links.filter(([source, target]) => this.chips.has(source) && this.chips.has(target));
    const most = Math.max(...there.map((link) => Math.abs(link[2])));
    const own = this.at == null ? [...there].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])).slice(0, 2 * this.shown.length)
      : there.filter(([source, target]) => source === this.at || target === this.at);
    const end = (n, top) => {
      const at = this.chips.get(n).getBoundingClientRect();
      return [at.x - box.x + at.width / 2, (top ? at.top : at.bottom) - box.y];
    };
    this.lines.setAttribute("width", box.width);
    this.lines.setAttribute("height", box.height);
    this.lines.replaceChildren(...own.map(([source, target, weight]) => {
      const [x, y] = end(source, true), [u, v] = end(target, false), bend = Math.max(18, (y - v) / 2);
      return svg("path", { d: `M${x} ${y}C${x} ${y - bend} ${u} ${v + bend} ${u} ${v}`, class: weight < 0 ? "against" : "",
        "stroke-width": (0.6 + 5 * Math.abs(weight) / most).toFixed(2), "stroke-opacity": this.at == null ? (0.15 + 0.55 * Math.abs(weight) / most).toFixed(2) : 0.8 });
    }));
    this.table.classList.toggle("pointing", this.at != null);
    const near = new Set(own.flatMap(([source, target]) => [source, target]));
    for (const [n, chip] of this.chips) chip.classList.toggle("near", this.at === n || near.has(n));
  }
}
