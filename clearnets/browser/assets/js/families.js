// The families side by side.

function median(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function distribution(values, chance, color) {
  const bins = new Array(40).fill(0);
  for (const value of values) bins[Math.min(39, Math.max(0, Math.floor(value * 40)))]++;
  const most = Math.max(1, ...bins), middle = median(values);
  const line = (x, name) => svg("line", { x1: 150 * x, x2: 150 * x, y1: 0, y2: 34, class: name });
  return svg("svg", { class: "dist", viewBox: "0 0 150 34", role: "img", "aria-label": `${values.length} scores, median ${number(middle)}`, style: `--c:${color}` },
    ...bins.map((count, k) => svg("rect", { x: k * 3.75, width: 3.25, y: 34 - 33 * count / most, height: 33 * count / most })),
    ...(chance == null ? [] : [line(chance, "chance")]), ...(middle == null ? [] : [line(middle, "")]));
}

function familiesPage(latents, show) {
  let scorer = latents.scorers[0];
  const layers = latents.layers;
  const body = h("tbody");
  const scoresOf = (family, layer) => {
    const values = [];
    for (let i = 0; i < latents.size; i++) {
      if (latents.family(i) !== family || (layer != null && latents.get("layer", i) !== layer)) continue;
      const value = latents.score(i, scorer);
      if (value != null) values.push(value);
    }
    return values;
  };
  const cell = (family, layer) => {
    const middle = median(scoresOf(family, layer));
    if (middle == null) return h("td", {}, "–");
    const chance = latents.chance[latents.scorers.indexOf(scorer)] ?? 0;
    const shade = Math.max(0, Math.min(1, (middle - chance) / (1 - chance)));
    return h("td", {}, h("button", { type: "button", "--a": shade.toFixed(3),
      title: `${family}, layer ${layer}: list these latents`,
      onclick: () => show({ family: latents.families.indexOf(family), layer, scorer, sort: "score" }) }, number(middle)));
  };
  const draw = () => body.replaceChildren(...latents.families.map((family) => {
    const drawn = {};
    for (const place of latents.coverage) {
      if (place.family === family) for (const [status, count] of Object.entries(place.drawn)) drawn[status] = (drawn[status] || 0) + count;
    }
    const all = Object.values(drawn).reduce((a, b) => a + b, 0), good = drawn.explained || 0;
    const others = Object.entries(drawn).filter(([status]) => status !== "explained").map(([status, count]) => `${count} ${status.replace("_", " ")}`).join(", ");
    const color = latents.color(family), values = scoresOf(family);
    return h("tr", {},
      h("th", { scope: "row", title: latents.about(family) }, latents.swatch(family), " ", h("a", { href: "#", onclick: (event) => { event.preventDefault(); show({ family: latents.families.indexOf(family), scorer }); } }, family)),
      h("td", { title: others || "all explained" }, h("div", { class: "cover", "--c": color, role: "img", "aria-label": `${good} of ${all} explained` }, h("i", { style: `width:${100 * good / all}%` }))),
      h("td", {}, `${whole(good)} of ${whole(all)}`),
      h("td", {}, distribution(values, latents.chance[latents.scorers.indexOf(scorer)], color)),
      h("td", {}, number(median(values))),
      layers.map((layer) => cell(family, layer)));
  }));
  draw();
  return h("main", { id: "main", tabindex: "-1" },
    h("h2", {}, "Families side by side"),
    h("p", { class: "note" }, "Latents were drawn uniformly from every layer. Those that are never active, or too seldom or too often to explain, count as not explained. A line marks the median, dots mark chance. Click a cell to list its latents."),
    h("div", { class: "choose" }, h("label", {}, "Score ", h("select", { onchange: (event) => { scorer = event.target.value; draw(); } },
      latents.scorers.map((name) => h("option", {}, name))))),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["family", "explained", "", "scores from 0 to 1", "median", ...layers.map((n) => `layer ${n}`)].map((text) => h("th", { scope: "col" }, text)))), body)),
    h("h3", {}, "What they are"),
    h("dl", {}, latents.families.map((family) => h("div", {}, h("dt", {}, latents.swatch(family), " ", h("b", {}, family)), h("dd", { class: "note" }, latents.about(family))))));
}
