// The latents, as columns; their names, links and texts.

async function unpack(packed) {
  const letters = atob(packed), bytes = new Uint8Array(letters.length);
  for (let k = 0; k < letters.length; k++) bytes[k] = letters.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

class Latents {
  constructor(page) {
    Object.assign(this, page);
    this.columns = page.latents;
    this.size = this.columns.family ? this.columns.family.length : 0;
    this.named = new Map();
    this.search = [];
    for (let i = 0; i < this.size; i++) {
      this.named.set(this.link(i), i);
      const words = [this.get("explanation", i), this.get("trigger", i), this.concept(i)];
      this.search.push(words.filter(Boolean).join("\n").toLowerCase());
    }
  }

  get(column, i) { return this.columns[column][i]; }
  family(i) { return this.families[this.get("family", i)]; }
  layerName(i) { return this.get("layer", i) < 0 ? "tokens" : String(this.get("layer", i)); }
  score(i, scorer) { return this.get("scores", i)[this.scorers.indexOf(scorer)]; }
  concept(i) { const c = this.get("concept", i); return c == null ? null : this.concepts[c]; }

  about(family) { return this.specs[family].about; }
  color(family) { return this.specs[family].color; }
  swatch(family) {
    return h("span", { class: `swatch ${this.specs[family].fill}`, "--c": this.color(family), "aria-hidden": "true" });
  }

  // transcoder/3/1187, and where there are several training seeds /seed-1 behind it.
  link(i) {
    const seed = this.get("seed", i);
    const name = `${this.family(i)}/${this.layerName(i)}/${this.get("latent", i)}`;
    return seed === this.seeds[0] ? name : `${name}/seed-${seed}`;
  }

  title(i) {
    const layer = this.get("layer", i) < 0 ? "" : ` · layer ${this.get("layer", i)}`;
    const seed = this.seeds.length > 1 ? ` · seed ${this.get("seed", i)}` : "";
    return `${this.family(i)}${layer} · latent ${this.get("latent", i)}${seed}`;
  }

  // The texts of all windows of a split, in lower case, made when first asked for.
  texts(split) {
    this.cached ||= {};
    return (this.cached[split] ||= this.text[split].map((window) =>
      window.map((token) => this.tokens[token]).join("").toLowerCase()));
  }

  // Which windows of `explain` hold a text.
  holding(text) {
    const found = new Set();
    this.texts("explain").forEach((window, place) => { if (window.includes(text)) found.add(place); });
    return found;
  }

  // Numbers of the latents that pass the filters, in the order asked for.
  find(filters) {
    const words = filters.query.toLowerCase().split(/\s+/).filter(Boolean);
    const held = words.length && filters.examples ? this.holding(filters.query.toLowerCase().trim()) : null;
    const scorer = this.scorers.indexOf(filters.scorer);
    const c = this.columns;
    const kept = [];
    for (let i = 0; i < this.size; i++) {
      if (filters.family !== "" && c.family[i] !== +filters.family) continue;
      if (filters.layer !== "" && c.layer[i] !== +filters.layer) continue;
      if (filters.seed !== "" && c.seed[i] !== +filters.seed) continue;
      if (filters.status !== "" && c.status[i] !== filters.status) continue;
      if (filters.concept !== "" && c.concept[i] !== +filters.concept) continue;
      if (filters.f1 > 0 && !(c.f1[i] >= filters.f1)) continue;
      const score = c.scores[i][scorer];
      if (filters.low > 0 && !(score >= filters.low)) continue;
      if (filters.high < 1 && !(score <= filters.high)) continue;
      if (filters.rarest > 0 && !(c.rate[i] >= filters.rarest)) continue;
      if (filters.most < 1 && !(c.rate[i] <= filters.most)) continue;
      if (words.length && !words.every((word) => this.search[i].includes(word))) {
        if (!held || !c.examples[i].some((example) => held.has(example[0]))) continue;
      }
      kept.push(i);
    }
    return this.sorted(kept, filters.sort, scorer);
  }

  sorted(kept, by, scorer) {
    const c = this.columns;
    const keys = {
      score: (i) => -(c.scores[i][scorer] ?? -1), worst: (i) => c.scores[i][scorer] ?? 2,
      rate: (i) => -c.rate[i], rare: (i) => c.rate[i], f1: (i) => -(c.f1[i] ?? -1),
    };
    const key = keys[by];
    return key ? kept.map((i) => [key(i), i]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((pair) => pair[1]) : kept;
  }
}
