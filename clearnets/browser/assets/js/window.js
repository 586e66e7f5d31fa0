// A window of text with its activations as shades, underlined where the explanation fires.

// An example is [window, quantile, place, level, place, level, …]; fires are places.
function windowOf(latents, split, example, largest, fires) {
  const levels = new Map(), fired = new Set(fires);
  for (let k = 2; k < example.length; k += 2) levels.set(example[k], example[k + 1]);
  const box = h("div", { class: "window" });
  let plain = "";
  const flush = () => { if (plain) box.append(plain); plain = ""; };
  latents.text[split][example[0]].forEach((token, place) => {
    const special = latents.special[token];
    if (special != null) {
      if (special) { flush(); box.append(h("span", { class: "edge" }, special)); }
      return;
    }
    const text = latents.tokens[token].replace(/\n/g, "↵\n");
    const level = levels.get(place);
    if (level == null && !fired.has(place)) { plain += text; return; }
    // A space before a word is not a part of its mark.
    const word = text.trimStart();
    if (word) plain += text.slice(0, text.length - word.length);
    flush();
    const told = fired.has(place) ? "fires" : null;
    if (level == null) { box.append(h("span", { class: told, title: "the explanation fires, the latent does not" }, word || text)); return; }
    const share = level / latents.levels, strength = `${Math.round(100 * share)} %`;
    const title = largest ? `${(share * largest).toPrecision(3)}, ${strength} of its largest` : `${strength} of the largest here`;
    // Who cannot see the shade reads or hears the number; a mark itself can have no label.
    box.append(h("mark", { class: told, "--a": share.toFixed(3), title }, word || text, h("span", { class: "hidden-text" }, ` (${strength})`)));
  });
  flush();
  if (box.firstChild?.nodeType === Node.TEXT_NODE) box.firstChild.data = box.firstChild.data.trimStart();
  return box;
}

function peakOf(latents, example, largest) {
  let level = 0;
  for (let k = 3; k < example.length; k += 2) level = Math.max(level, example[k]);
  return ((level / latents.levels) * largest).toPrecision(2);
}

function exampleList(latents, split, examples, largest, label, fires = []) {
  return h("ol", { class: "examples", "aria-label": label },
    examples.map((example, k) => h("li", {},
      h("span", { class: "peak", title: "strongest activation in this window" },
        largest ? peakOf(latents, example, largest) : ""),
      windowOf(latents, split, example, largest, fires[k]))));
}
