// Views by the address behind #: a latent, the families, the circuits, the rating.

function theme(choice) {
  document.documentElement.dataset.theme = choice;
  document.getElementById("theme").textContent = choice === "dark" ? "Light" : "Dark";
}

function startTheme() {
  const asked = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("clearnets-theme"); } catch { /* none is kept */ }
  theme(chosen || (asked.matches ? "dark" : "light"));
  asked.addEventListener("change", () => { if (!chosen) theme(asked.matches ? "dark" : "light"); });
  document.getElementById("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("clearnets-theme", chosen); } catch { /* for this page only */ }
    theme(chosen);
  });
}

// Keys of one letter or sign can be switched off, as dictation and stray touches may press them.
function startKeys() {
  const box = document.getElementById("single-keys");
  try { box.checked = localStorage.getItem("clearnets-keys") !== "off"; } catch { /* none is kept */ }
  box.addEventListener("change", () => {
    try { localStorage.setItem("clearnets-keys", box.checked ? "on" : "off"); } catch { /* for this page only */ }
  });
}

// What is behind #; an address that no browser can decode names no latent, and is left as it is.
function hashOf(address) {
  const hash = address.slice(1);
  try { return decodeURIComponent(hash); } catch { return hash; }
}

class App {
  constructor(latents) {
    this.latents = latents;
    this.view = document.getElementById("view");
    document.getElementById("experiment").textContent = `feature browser · ${latents.experiment}`;
    this.list = new List(latents, (i) => this.go(latents.link(i)));
    this.main = h("main", { id: "main", tabindex: "-1", "aria-labelledby": "latent-title" });
    this.both = h("div", { class: "latents" }, this.list.element, this.main);
    this.rating = new Rating(latents);
    this.written = new Written(latents);
    addEventListener("hashchange", () => this.route());
    addEventListener("keydown", (event) => this.key(event));
    const keys = document.getElementById("keys");
    document.getElementById("help").addEventListener("click", () => keys.showModal());
    document.querySelector('[data-view="circuits"]').hidden = !latents.circuits.length;
    document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); document.getElementById("main").focus(); });
    this.route();
  }

  // Go through the list without a step back in the history for each latent.
  go(link) {
    history.replaceState(null, "", `#${link}`);
    this.route();
  }

  route() {
    const hash = hashOf(location.hash);
    const first = hash.split("/")[0];
    const name = ["families", "circuits", "rate"].includes(first) ? first : "latents";
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.name = name;
    if (name === "families") this.put(h("div", { class: "families" }, familiesPage(this.latents, (filters) => this.show(filters))), "families");
    else if (name === "circuits") this.put(h("div", { class: "circuits" }, circuitsPage(this.latents, hash, (link) => this.go(link))), "circuits");
    else if (name === "rate") this.put(this.rating.element, "rate blind");
    else this.latent(hash);
  }

  put(element, title) {
    document.title = `clearnets · ${title}`;
    if (this.view.firstChild !== element) this.view.replaceChildren(element);
  }

  show(filters) {
    this.list.reset(filters);
    this.go(this.list.found.length ? this.latents.link(this.list.found[0]) : "");
  }

  latent(hash) {
    const first = hash === "" && this.list.found.length ? this.list.found[0] : null;
    const i = hash === "" ? first : this.latents.named.get(hash);
    this.put(this.both, i == null ? "latents" : this.latents.title(i));
    this.both.classList.toggle("reading", hash !== "");
    if (i == null) {
      this.main.replaceChildren(h("h2", { id: "latent-title" }, hash ? `No latent ${hash}` : "No latents"),
        h("p", { class: "note" }, hash ? "Only latents that were drawn to be explained are here; `clearnets show FAMILY LAYER LATENT` prints any other." : "This experiment has none."));
    } else {
      this.main.replaceChildren(...latentPage(this.latents, i, () => this.go(""), this.written));
    }
    this.main.scrollTop = 0;
    this.list.mark(i);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("keys").open) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape") {
      if (this.name === "latents") { if (this.both.classList.contains("reading") && !typing && innerWidth <= 760) this.go(""); this.list.box.focus(); }
      return;
    }
    if (typing) return;
    const single = document.getElementById("single-keys").checked;
    // The rating's keys are the rating's own: without the others they need it in focus.
    const rates = this.name === "rate" && (single || this.rating.element.contains(event.target));
    if (rates && this.rating.key_(event.key)) { event.preventDefault(); return; }
    if (event.key.length === 1 && !single) return;
    const keys = {
      "?": () => document.getElementById("keys").showModal(),
      t: () => document.getElementById("theme").click(),
    };
    if (this.name === "latents") {
      Object.assign(keys, {
        j: () => this.list.step(1), k: () => this.list.step(-1), r: () => this.list.random(),
        e: () => document.getElementById("own")?.focus(),
        "/": () => { this.both.classList.remove("reading"); this.list.query.focus(); },
      });
      if (event.target === this.list.box) {
        Object.assign(keys, { ArrowDown: keys.j, ArrowUp: keys.k, Home: () => this.list.choose(0), End: () => this.list.choose(this.list.found.length - 1),
          Enter: () => document.getElementById("latent-title").focus() });
      } else if (!event.target.closest("a, button, summary")) keys.Enter = () => document.getElementById("latent-title").focus();
    }
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  }
}

startTheme();
startKeys();
unpack(document.getElementById("packed").textContent).then((page) => {
  window.app = new App(new Latents(page));
}).catch((error) => {
  document.getElementById("view").replaceChildren(h("p", { class: "loading", role: "alert" },
    `This page could not be unpacked (${error.message}); it needs a browser of 2023 or later.`));
});
