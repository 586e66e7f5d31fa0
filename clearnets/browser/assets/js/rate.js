// Blind rating: which family a latent is of stays hidden. First its windows alone, then the
// explanation with windows in which it is silent; one key per answer. All windows are held out: no
// explainer has seen them.

const QUESTIONS = {
  interpretable: "Do the marked places have something in common that you could put in words?",
  fits: "Does the explanation tell where the latent is active, and where it is not?",
};
const ANSWERS = { y: "yes", n: "no", u: "unsure" };

// A small generator of random numbers in [0, 1), so that a name always gives the same order.
function generator(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(items, random) {
  const order = [...items];
  for (let k = order.length - 1; k > 0; k--) {
    const other = Math.floor(random() * (k + 1));
    [order[k], order[other]] = [order[other], order[k]];
  }
  return order;
}

// `count` explained latents, as many of each family as there can be, in an order that tells nothing.
function toRate(latents, count, random) {
  const byFamily = latents.families.map((_, family) => {
    const own = [];
    for (let i = 0; i < latents.size; i++) {
      if (latents.get("family", i) === family && latents.get("explanation", i) && latents.get("active", i).length) own.push(i);
    }
    return shuffled(own, random);
  });
  const drawn = [];
  for (let turn = 0; drawn.length < count && byFamily.some((own) => own.length > turn); turn++) {
    drawn.push(...shuffled(byFamily.filter((own) => own.length > turn).map((own) => own[turn]), random));
  }
  return shuffled(drawn.slice(0, count), random);
}

class Rating {
  constructor(latents) {
    this.latents = latents;
    // These stay, whatever is asked: what is said in them is heard, and a button keeps the focus.
    this.said = h("p", { class: "note", role: "status", "aria-live": "polite" });
    this.stage = h("div", {});
    this.main = h("main", { id: "main", tabindex: "-1" }, this.said, this.stage);
    this.element = h("div", { class: "rate" }, this.main);
    this.asking = this.questions();
    this.rater = null;
    this.begin();
  }

  // What is asked, as elements that are filled anew for each question.
  questions() {
    const button = (key, text, attributes, act) => h("button", { type: "button", ...attributes, onclick: act }, h("kbd", {}, key), ` ${text}`);
    this.progress = h("progress", { "aria-label": "Progress" });
    this.shown = h("div", {});
    this.question = h("p", { id: "question" });
    return [this.progress, this.shown, h("div", { class: "answers" }, this.question,
      h("div", { class: "row", role: "group", "aria-labelledby": "question" },
        Object.entries(ANSWERS).map(([key, answer]) => button(key, answer, { "data-answer": answer }, () => this.answer(answer))),
        button("b", "back", {}, () => this.back()),
        button("s", "save", {}, () => this.save())))];
  }

  // Show other elements and say what they are. The focus goes to the whole if what had it is gone.
  put(elements, said) {
    const inside = this.main.contains(document.activeElement);
    if (this.stage.firstChild !== elements[0]) this.stage.replaceChildren(...elements);
    this.said.replaceChildren(...said);
    if (inside && !this.main.contains(document.activeElement)) this.main.focus();
  }

  get key() { return `clearnets-ratings/${this.latents.experiment}/${this.rater}`; }

  begin() {
    const name = h("input", { id: "rater", required: true, pattern: "[a-z0-9][a-z0-9\\-]*", autocomplete: "off", placeholder: "for example mara" });
    const count = h("input", { id: "how-many", type: "number", min: 1, max: this.latents.size, value: 40 });
    this.put([h("h2", {}, "Rate blind"),
      h("p", {}, "You will see latents of all families, mixed, without a word on which family each is of. Of each you first see windows of text in which it is active, and then its explanation with windows in which it is silent, and answer one question about each with one key. No explainer has seen these windows."),
      h("p", { class: "note" }, "What you answer stays in this browser until you save it as a file. `clearnets collate` reads such files from paper/ratings/ and tells how far the automatic scores agree with you."),
      h("form", { onsubmit: (event) => { event.preventDefault(); this.start(name.value, +count.value); } },
        h("label", {}, "Your name, in small letters; the same name goes on where it stopped", name),
        h("label", {}, "How many latents", count), h("div", {}, h("button", {}, "Start")))], []);
  }

  start(rater, count) {
    this.rater = rater;
    this.answers = this.load();
    this.order = toRate(this.latents, count, generator(`${this.latents.experiment}/${rater}`));
    this.draw();
  }

  load() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.key) || "[]");
      return kept.filter((record) => this.recognised(record));
    } catch { return []; }
  }

  // An answer about an explanation that has changed since is not an answer about this page.
  recognised(record) {
    const layer = record.layer == null ? "tokens" : record.layer;
    const name = `${record.family}/${layer}/${record.latent}`;
    const i = this.latents.named.get(name) ?? this.latents.named.get(`${name}/seed-${record.seed}`);
    return i != null && this.latents.get("seed", i) === record.seed && this.latents.get("explanation", i) === record.explanation;
  }

  keep() { try { localStorage.setItem(this.key, JSON.stringify(this.answers)); } catch { /* not kept beyond this tab */ } }

  answered(i, question) {
    return this.answers.find((a) => a.question === question && a.latent === this.latents.get("latent", i) &&
      a.family === this.latents.family(i) && a.seed === this.latents.get("seed", i) && (a.layer ?? -1) === this.latents.get("layer", i));
  }

  // The first question without an answer: [place, latent, question], or null at the end.
  next() {
    for (const [place, i] of this.order.entries()) {
      for (const question of Object.keys(QUESTIONS)) if (!this.answered(i, question)) return [place, i, question];
    }
    return null;
  }

  answer(answer) {
    const now = this.rater && this.next();
    if (!now) return;
    const [, i, question] = now, { latents } = this, layer = latents.get("layer", i);
    this.answers.push({ experiment: latents.experiment, rater: this.rater, family: latents.family(i), seed: latents.get("seed", i),
      layer: layer < 0 ? null : layer, latent: latents.get("latent", i), explanation: latents.get("explanation", i), question, answer });
    this.keep();
    this.draw();
  }

  back() { if (this.rater) { this.answers.pop(); this.keep(); this.draw(); } }

  draw() {
    const now = this.next();
    if (!now) { this.end(); return; }
    const [place, i, question] = now, { latents } = this;
    const says = question === "fits";
    const active = latents.get("active", i).map((example) => windowOf(latents, "score", example, null));
    const silent = latents.get("silent", i).map((window) => windowOf(latents, "score", [window, 0], null));
    const list = (windows, label) => h("ol", { class: "examples plain", "aria-label": label }, windows.map((w) => h("li", {}, w)));
    this.progress.max = this.order.length * 2;
    this.progress.value = place * 2 + (says ? 1 : 0);
    this.question.textContent = QUESTIONS[question];
    this.shown.replaceChildren(
      ...(says ? [h("p", { class: "explanation" }, latents.get("explanation", i))] : []),
      h("h3", {}, "It is active here", h("small", {}, "the stronger the shade, the more strongly")), list(active, "Windows in which it is active"),
      ...(says ? [h("h3", {}, "and silent here"), list(silent, "Windows in which it is silent")] : []));
    this.put(this.asking, [`Latent ${place + 1} of ${this.order.length}, question ${says ? 2 : 1} of 2`,
      h("span", { class: "hidden-text" }, `: ${QUESTIONS[question]}`)]);
    this.main.scrollTop = 0;
  }

  end() {
    const rows = this.latents.families.map((family) => {
      const own = this.answers.filter((a) => a.family === family);
      const share = (question) => {
        const sure = own.filter((a) => a.question === question && a.answer !== "unsure");
        return sure.length ? `${sure.filter((a) => a.answer === "yes").length} of ${sure.length}` : "–";
      };
      return h("tr", {}, h("th", { scope: "row" }, this.latents.swatch(family), " ", family), Object.keys(QUESTIONS).map((q) => h("td", {}, share(q))));
    });
    this.put([h("h2", {}, "Done"),
      h("p", {}, `${this.answers.length} answers. Save them as a file and put it into paper/ratings/${this.latents.experiment}/; then run clearnets collate.`),
      h("p", {}, h("button", { type: "button", onclick: () => this.save() }, h("kbd", {}, "s"), " Save the ratings"), " ",
        h("button", { type: "button", onclick: () => this.back() }, h("kbd", {}, "b"), " One answer back")),
      h("details", {}, h("summary", {}, "Show the families"),
        h("table", {}, h("thead", {}, h("tr", {}, ["family", "could be put in words", "explanation fits"].map((t) => h("th", { scope: "col" }, t)))), h("tbody", {}, rows)))], ["All questions are answered."]);
  }

  // One JSON object per line.
  get file() { return this.answers.map((record) => JSON.stringify(record) + "\n").join(""); }

  save() {
    if (this.rater) saveFile(`${this.rater}.jsonl`, this.file);
  }

  key_(key) {
    if (key in ANSWERS) this.answer(ANSWERS[key]);
    else if (key === "b") this.back();
    else if (key === "s") this.save();
    else return false;
    return true;
  }
}
