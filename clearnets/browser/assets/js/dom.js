// Elements from values. Text is only ever set as text, so nothing in the data can become markup.

function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const number = (value, digits = 2) => (value == null ? "–" : value.toFixed(digits));
const whole = (value) => value.toLocaleString("en");

function percent(share) {
  if (!share) return "0 %";
  const value = 100 * share;
  return (value >= 10 ? value.toFixed(0) : value.toPrecision(2).replace(/\.?0+(e|$)/, "$1")) + " %";
}

// Have the browser save a text, of one JSON object per line, as a file.
function saveFile(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
