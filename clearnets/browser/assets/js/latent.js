// One latent with all that is known of it.

function scoreBar(latents, scorer, value) {
  const chance = latents.chance[latents.scorers.indexOf(scorer)];
  return h("span", { class: "bar", "aria-hidden": "true" },
    value != null && h("i", { style: `width:${Math.max(0, Math.min(1, value)) * 100}%` }),
    chance != null && h("u", { style: `left:${chance * 100}%`, title: "chance" }));
}

function histogram(counts, largest) {
  const most = Math.log1p(Math.max(1, ...counts));
  const width = 240 / counts.length;
  const bars = counts.map((count, k) => {
    const high = 60 * Math.log1p(count) / most;
    const bar = svg("rect", { x: k * width, y: 62 - high, width: width - 1, height: high });
    const low = (largest * k / counts.length).toPrecision(2);
    const end = (largest * (k + 1) / counts.length).toPrecision(2);
    bar.append(svg("title", {}, `${low} to ${end}: ${whole(count)}`));
    return bar;
  });
  const label = `Histogram of ${whole(counts.reduce((a, b) => a + b, 0))} activations from 0 to ${largest.toPrecision(3)}`;
  return h("div", {},
    svg("svg", { class: "hist", viewBox: "0 0 240 64", preserveAspectRatio: "none", role: "img", "aria-label": label },
      ...bars, svg("line", { x1: 0, y1: 63, x2: 240, y2: 63 })),
    h("div", { class: "axis" }, h("span", {}, "0"), h("span", {}, largest.toPrecision(3))));
}

function facts(latents, i) {
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
  const concept = latents.concept(i);
  return h("dl", { class: "facts" },
    latents.scorers.map((scorer) => {
      const value = latents.score(i, scorer);
      return fact(scorer, number(value), scoreBar(latents, scorer, value));
    }),
    fact("active at", percent(latents.get("rate", i)) + " of tokens"),
    fact("in", percent(latents.get("windows", i)) + " of windows"),
    executed(latents, i).map(([name, value, note]) => fact(name, value, h("span", { class: "note" }, note))),
    concept && fact("concept it recovers best", concept, h("span", { class: "note" },
      `F1 ${number(latents.get("f1", i))}, MCC ${number(latents.get("mcc", i))}`)));
}

// How well the explanation simulates the latent, and what taking the latent away does.
function executed(latents, i) {
  const simulated = latents.get("simulated", i), effect = latents.get("effect", i), found = [];
  if (simulated) {
    const [on, off, r2] = simulated;
    found.push(["simulated by its explanation", `R² ${number(r2)}`, `${on} where it fires, else ${off}`]);
  }
  if (effect) found.push(["ablated, it moves the prediction by", `${effect[2]} nats`, `told by the second sentence with AUROC ${number(effect[1])}`]);
  return found;
}

function shown(text) { return text.replace(/ /g, "·").replace(/\n/g, "↵") || "∅"; }

function promoted(latents, i) {
  const tokens = latents.get("tokens", i);
  if (!tokens) {
    const why = latents.family(i) === "token-unigram"
      ? "These latents have no direction in a model's output."
      : "The model that this coder was fitted to, untrained, is not kept.";
    return [h("h3", {}, "Tokens it promotes"), h("p", { class: "note" }, why)];
  }
  const chips = (ids, down) => h("ul", { class: `chips ${down ? "down" : ""}` }, ids.map((id) => h("li", {}, shown(latents.tokens[id]))));
  return [
    h("h3", {}, "Tokens it promotes", h("small", {}, "logit lens of what it writes")), chips(tokens[0], false),
    h("h3", {}, "and suppresses"), chips(tokens[1], true),
  ];
}

function nearest(latents, i) {
  const cards = latents.get("near", i).map(([other, cosine]) => {
    const example = latents.get("examples", other)[0];
    return h("article", { class: "card" },
      h("div", { class: "head" }, latents.swatch(latents.family(other)),
        h("a", { href: `#${latents.link(other)}` }, `${latents.family(other)} ${latents.layerName(other)}/${latents.get("latent", other)}`),
        h("span", { title: "cosine of their activations" }, (cosine / 1000).toFixed(2))),
      h("p", {}, latents.get("explanation", other) || latents.reasons[latents.get("status", other)] || ""),
      example && windowOf(latents, "explain", example, latents.get("largest", other)));
  });
  return [
    h("h3", {}, "Nearest in the other families", h("small", {}, "by the cosine of their activations over the same text, in any layer, of the latents that were drawn")),
    cards.length ? h("div", { class: "cards" }, cards) : h("p", { class: "note" }, "None is active at the same tokens."),
  ];
}

function exchanges(latents, i) {
  const total = latents.get("exchanges", i), some = latents.get("shown", i);
  if (!total) return null;
  return h("details", {}, h("summary", {}, `What the language model was asked, and said (${some.length} of ${total})`),
    some.map(([task, model, messages, reply]) => h("div", { class: "exchange" },
      h("p", { class: "note" }, `${task} · ${model}`),
      messages.map(([role, text]) => [h("b", {}, role), h("pre", { tabindex: "0" }, text)]),
      h("b", {}, "reply"), h("pre", { tabindex: "0" }, reply ?? "(none came)"))));
}

function latentPage(latents, i, back, written) {
  const largest = latents.get("largest", i), examples = latents.get("examples", i);
  const explanation = latents.get("explanation", i), status = latents.get("status", i);
  const title = h("h2", { tabindex: "-1", id: "latent-title" }, latents.swatch(latents.family(i)), latents.title(i),
    h("button", { type: "button", title: "Copy the address of this latent", onclick: (event) => copyLink(event.target) }, "Copy link"));
  const fires = latents.get("fires", i), effect = latents.get("effect", i), quantiles = [];
  const partOf = (q) => {
    const places = examples.map((_, k) => k).filter((k) => examples[k][1] === q);
    return [places.map((k) => examples[k]), places.map((k) => fires[k] || [])];
  };
  for (let q = 1; q <= latents.quantiles; q++) {
    const [part, fired] = partOf(q);
    if (part.length) quantiles.push(h("h3", {}, `Part ${q} of ${latents.quantiles}`, q === 1 && h("small", {}, "of its other windows, by strength: drawn at random")),
      exampleList(latents, "explain", part, largest, `Examples of part ${q}`, fired));
  }
  const [top, topFires] = partOf(0);
  return [
    h("button", { class: "back", type: "button", onclick: back }, "← List"), title,
    h("p", { class: "note" }, latents.about(latents.family(i))),
    explanation ? h("p", { class: "explanation" }, explanation)
      : h("p", { class: "explanation none" }, `No explanation: ${latents.reasons[status] || status}.`),
    effect && h("p", { class: "explanation effect" }, effect[0]),
    explanation && latents.reasons[status] && h("p", { class: "note" }, `No score: ${latents.reasons[status]}.`),
    facts(latents, i), !latents.reasons[status] && written.form(i),
    h("div", { class: "pair" },
      h("div", {}, h("h3", {}, "Activations", h("small", {}, `${whole(latents.get("count", i))} of them, log scale`)),
        largest ? histogram(latents.get("histogram", i), largest) : h("p", { class: "note" }, "None.")),
      h("div", {}, promoted(latents, i))),
    top.length ? [h("h3", {}, "Strongest activations", fires.some((places) => places) && h("small", {}, h("span", { class: "fires" }, "underlined"), " where the explanation fires")),
      exampleList(latents, "explain", top, largest, "Windows with its strongest activations", topFires)] : null,
    quantiles, nearest(latents, i), exchanges(latents, i),
  ].flat(Infinity).filter(Boolean);
}

async function copyLink(button) {
  try { await navigator.clipboard.writeText(location.href); button.textContent = "Copied"; }
  catch { button.textContent = location.hash; }
  setTimeout(() => { button.textContent = "Copy link"; }, 1500);
}
