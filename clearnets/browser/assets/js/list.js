// The list of latents with its filters. Only the rows in sight are elements.

const ROW = 66;

function freshFilters(latents) {
  return { query: "", examples: false, family: "", layer: "", seed: "", status: "explained", concept: "", f1: 0,
    scorer: latents.scorers[0], low: 0, high: 1, rarest: 0, most: 1, sort: "" };
}

class List {
  constructor(latents, open) {
    this.latents = latents;
    this.open = open;
    this.chosen = -1;
    this.found = [];
    this.space = h("div", { class: "space", role: "presentation" });
    this.box = h("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Latents", id: "list",
      onscroll: () => this.draw() }, this.space);
    this.said = h("span", { role: "status", "aria-live": "polite" });
    this.element = h("section", { class: "browse", "aria-label": "Find a latent" });
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.reset({});
  }

  reset(changes) {
    this.filters = { ...freshFilters(this.latents), ...changes };
    this.element.replaceChildren(this.form(), this.box);
    this.apply();
  }

  form() {
    const { latents, filters } = this;
    const set = (name, kind) => (event) => {
      filters[name] = kind === "number" ? +event.target.value : kind === "check" ? event.target.checked : event.target.value;
      this.apply();
    };
    const select = (name, label, options) => h("select", { "aria-label": label, onchange: set(name) },
      options.map(([value, text]) => h("option", { value, selected: String(filters[name]) === String(value) }, text)));
    const bound = (name, label, step, max) => h("input", { type: "number", "aria-label": label, title: label, placeholder: label, min: 0, max, step,
      value: filters[name] === freshFilters(latents)[name] ? null : filters[name],
      oninput: (event) => { const v = event.target.value; filters[name] = v === "" ? freshFilters(latents)[name] : +v / (max === 100 ? 100 : 1); this.apply(); } });
    const layers = [...new Set(latents.columns.layer || [])].sort((a, b) => a - b);
    const statuses = [...new Set(latents.columns.status || [])];
    const concepts = latents.concepts.map((name, k) => [k, name]).sort((a, b) => (a[1] < b[1] ? -1 : 1));
    this.query = h("input", { type: "search", id: "search", placeholder: "Search explanations  ( / )", "aria-label": "Search explanations, trigger words and concepts",
      value: filters.query, oninput: set("query") });
    return h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); this.box.focus(); } },
      this.query,
      h("label", { class: "inline" }, h("input", { type: "checkbox", checked: filters.examples, onchange: set("examples", "check") }), "also in the text of the examples"),
      h("div", { class: latents.seeds.length > 1 ? "row three" : "row" },
        select("family", "Family", [["", "all families"], ...latents.families.map((name, k) => [k, name])]),
        select("layer", "Layer", [["", "all layers"], ...layers.map((n) => [n, n < 0 ? "no layer" : `layer ${n}`])]),
        latents.seeds.length > 1 && select("seed", "Training seed", [["", "all seeds"], ...latents.seeds.map((n) => [n, `seed ${n}`])])),
      h("div", { class: "row" },
        select("sort", "Order", [["", "in their order"], ["score", "highest score"], ["worst", "lowest score"], ["rate", "most active"], ["rare", "least active"], ["f1", "concept F1"]]),
        select("scorer", "Score shown", latents.scorers.map((name) => [name, name]))),
      h("details", {}, h("summary", {}, "More filters"),
        h("div", { class: "row" },
          select("status", "Status", [["", "explained or not"], ...statuses.map((s) => [s, s.replace("_", " ")])]),
          concepts.length ? select("concept", "Concept it recovers best", [["", "any concept"], ...concepts]) : ""),
        h("div", { class: "row" }, bound("low", "score from", 0.05, 1), bound("high", "score to", 0.05, 1)),
        h("div", { class: "row" }, bound("rarest", "% of tokens from", 0.01, 100), bound("most", "% of tokens to", 0.01, 100)),
        concepts.length ? h("div", { class: "row" }, bound("f1", "concept F1 from", 0.05, 1)) : ""),
      h("div", { class: "count" }, this.said, h("button", { type: "button", onclick: () => this.reset({}) }, "Clear")));
  }

  apply() {
    const before = this.found[this.chosen];
    this.found = this.latents.find(this.filters);
    this.chosen = before == null ? -1 : this.found.indexOf(before);
    this.said.textContent = `${whole(this.found.length)} of ${whole(this.latents.size)} latents`;
    this.space.style.height = `${this.found.length * ROW}px`;
    this.box.scrollTop = Math.max(0, this.chosen * ROW - this.box.clientHeight / 2);
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 4);
    const last = Math.min(this.found.length, first + Math.ceil((this.box.clientHeight || 900) / ROW) + 9);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.row(place));
    this.space.replaceChildren(...rows);
    const id = this.chosen >= first && this.chosen < last ? `row-${this.chosen}` : null;
    if (id) this.box.setAttribute("aria-activedescendant", id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const { latents } = this, i = this.found[place];
    const score = latents.score(i, this.filters.scorer), says = latents.get("explanation", i);
    return h("div", { class: "item", id: `row-${place}`, role: "option", style: `top:${place * ROW}px`,
      "aria-selected": String(place === this.chosen), "aria-posinset": place + 1, "aria-setsize": this.found.length,
      onclick: () => this.choose(place) },
      h("div", { class: "head" }, latents.swatch(latents.family(i)), h("b", {}, latents.family(i)),
        `${latents.layerName(i)}/${latents.get("latent", i)}`, latents.seeds.length > 1 && ` · seed ${latents.get("seed", i)}`,
        h("span", { class: "score" }, scoreBar(latents, this.filters.scorer, score), number(score))),
      h("div", { class: `says ${says ? "" : "none"}` }, says || latents.reasons[latents.get("status", i)] || latents.get("status", i)));
  }

  // Mark the latent that is open, and bring it into sight.
  mark(i) {
    this.chosen = this.found.indexOf(i);
    if (this.chosen >= 0) {
      const top = this.chosen * ROW, { scrollTop, clientHeight } = this.box;
      if (top < scrollTop || top + ROW > scrollTop + clientHeight) this.box.scrollTop = top - clientHeight / 2;
    }
    this.draw();
  }

  choose(place) {
    if (place >= 0 && place < this.found.length) this.open(this.found[place]);
  }

  step(by) { this.choose(this.chosen < 0 ? 0 : Math.min(this.found.length - 1, Math.max(0, this.chosen + by))); }
  random() { this.choose(Math.floor(Math.random() * this.found.length)); }
}
