// Explanations in one's own words, by the latent's link: kept in this browser, and saved as a file.

class Written {
  constructor(latents) {
    this.latents = latents;
    this.key = `clearnets-explanations/${latents.experiment}`;
    this.texts = {};
    this.load();
  }

  load() { try { this.texts = { ...JSON.parse(localStorage.getItem(this.key)) }; } catch { /* those of this tab stay */ } }

  // Another tab may have written since.
  set(link, text) {
    this.load();
    if (text.trim()) this.texts[link] = text;
    else delete this.texts[link];
    try { localStorage.setItem(this.key, JSON.stringify(this.texts)); } catch { /* not kept beyond this tab */ }
  }

  get links() { return Object.keys(this.texts).filter((link) => this.latents.named.has(link)).sort(); }

  // One JSON object per line.
  get file() {
    const { latents } = this;
    return this.links.map((link) => {
      const i = latents.named.get(link), layer = latents.get("layer", i);
      return JSON.stringify({ experiment: latents.experiment, family: latents.family(i), seed: latents.get("seed", i),
        layer: layer < 0 ? null : layer, latent: latents.get("latent", i), explanation: this.texts[link].trim() }) + "\n";
    }).join("");
  }

  save() { saveFile(`explanations-${this.latents.experiment}.jsonl`, this.file); }

  // Where one writes about a latent, and saves what was written about any.
  form(i) {
    const link = this.latents.link(i);
    const box = h("textarea", { id: "own", rows: 2, maxlength: 1000, "aria-describedby": "own-note",
      placeholder: 'The word "the" right after "in" or "on".', oninput: () => { this.set(link, box.value); count(); } }, this.texts[link] ?? "");
    const save = h("button", { type: "button", onclick: () => this.save() });
    const count = () => {
      const all = this.links.length;
      save.textContent = all > 1 ? `Save all ${all} as a file` : "Save as a file";
      save.disabled = !all;
    };
    count();
    const { dataset } = document.documentElement;
    const hide = h("input", { type: "checkbox", checked: "blind" in dataset, onchange: () => { if (hide.checked) dataset.blind = ""; else delete dataset.blind; } });
    return h("div", { class: "own" }, h("label", { for: "own" }, "Your explanation: when is it active?"), box, save,
      h("label", { class: "hide" }, hide, "Hide the explainer's sentences, here and in the list"),
      h("p", { class: "note", id: "own-note" }, "Kept in this browser. `clearnets judge FILE` scores what you save on held-out text. " +
        "Its judge of rules reads sentences such as the explainer's."));
  }
}
