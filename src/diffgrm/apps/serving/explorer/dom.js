// Small helpers for the page. Text only ever enters through textContent.

/** An element: `el("li", { class: "row", data: { item: "7" } }, "text", child)`; `on` holds listeners. */
export function el(name, { on = {}, data = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  for (const [event, listener] of Object.entries(on)) made.addEventListener(event, listener);
  Object.assign(made.dataset, data);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** One of the drawings of index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows a drawing; its label is what it does. */
export function iconButton(name, label, act, attributes = {}) {
  return el("button", { type: "button", class: "small-button", title: label, "aria-label": label, on: { click: act }, ...attributes }, icon(name));
}

/** The named parts of a panel: `data-part="beam-note"` is `parts.beamNote`. */
export function partsOf(panel) {
  const parts = {};
  for (const part of panel.querySelectorAll("[data-part]")) {
    parts[part.dataset.part.replace(/-(.)/g, (_, letter) => letter.toUpperCase())] = part;
  }
  return parts;
}

/** Tell those who do not see the page; what an answer brought does not take the place of what was done. */
export function say(text, place = "status") {
  document.getElementById(place).textContent = text;
}

/** Show a text, or hide its place where there is none. */
export function tell(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

/** Show what went wrong, with a way to try again, unless the question itself is refused, as it would be again. */
export function tellProblem(place, error, again) {
  const refused = error.status === 422;
  place.replaceChildren(el("p", {}, error.message), refused ? "" : el("button", { type: "button", class: "quiet", on: { click: again } }, "Try again"));
  place.hidden = false;
}

/** Call later, and only once for calls that follow each other quickly. */
export function calm(act, milliseconds) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds, ...args);
  };
}

/** 0.0312 -> "3 %", 0.004 -> "< 1 %". */
export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  return `${share > 0.99 && share < 1 ? "> 99" : Math.round(100 * share)} %`;
}

/** 1 -> "1 item", 1200 -> "1,200 items". */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
