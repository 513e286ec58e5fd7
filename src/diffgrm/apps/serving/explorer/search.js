// The search box: a combobox whose list holds the items found, the most frequent ones while nothing is written.

import { Latest, findItems, load } from "./api.js";
import { calm, count, el, say, tell, tellProblem } from "./dom.js";

const SHOWN = 8;

export function searchBox(input, { popup, foundTitle, searchProblem }, { add, seen }) {
  const list = document.getElementById("found");
  const latest = new Latest(popup);
  const later = calm(find, 150);
  let found = [];
  let active = -1;
  let answered = null; // the query that the list belongs to
  let wanted = null; // the query whose first item is added once it is found: Enter came before the answer

  const query = () => input.value.trim();

  function find() {
    const asked = query();
    load(latest, (signal) => findItems(asked, SHOWN, signal), (answer) => show(asked, answer), (error) => failed(asked, error));
  }

  function failed(asked, error) {
    if (wanted === asked) wanted = null;
    list.replaceChildren();
    tell(foundTitle, "");
    tellProblem(searchProblem, error, find);
  }

  function show(asked, { items, total }) {
    found = items;
    answered = asked;
    items.forEach(seen);
    searchProblem.hidden = true;
    list.replaceChildren(...items.map(option));
    tell(foundTitle, title(asked, total));
    activate(asked && items.length ? 0 : -1);
    if (wanted === asked && items.length) return choose(0);
    if (!popup.hidden) say(asked ? `${count(total, "item")} found` : "Often chosen items");
    if (wanted === asked) wanted = null;
  }

  function title(asked, total) {
    if (!asked) return "Often chosen";
    if (!total) return `No item has “${asked}” in its title or id`;
    return total > SHOWN ? `${SHOWN} of ${count(total, "item")}` : count(total, "item");
  }

  function option(item, place) {
    return el(
      "li",
      {
        id: `found-${place}`,
        role: "option",
        "aria-selected": "false",
        data: { item: item.item_id },
        on: { mousedown: (event) => event.preventDefault(), click: () => choose(place), mousemove: () => active !== place && activate(place) },
      },
      el("span", { class: "title" }, item.title ?? String(item.item_id)),
      el("span", { class: "small" }, `${item.item_id} · ${item.recommendable ? count(item.events, "event") : "removed"}`),
    );
  }

  function activate(place) {
    active = place;
    [...list.children].forEach((child, number) => child.setAttribute("aria-selected", String(number === place)));
    if (place >= 0) {
      input.setAttribute("aria-activedescendant", `found-${place}`);
      list.children[place].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  }

  function open() {
    popup.hidden = false;
    input.setAttribute("aria-expanded", "true");
    if (answered !== query()) find();
  }

  function close() {
    wanted = null;
    popup.hidden = true;
    input.setAttribute("aria-expanded", "false");
    activate(-1);
  }

  function choose(place) {
    const item = found[place];
    input.value = "";
    close();
    add(item);
  }

  function move(by) {
    if (popup.hidden) open();
    else if (found.length) activate(active < 0 && by < 0 ? found.length - 1 : (active + by + found.length) % found.length);
  }

  const keys = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    Enter: () => {
      if (answered !== query()) wanted = query() || null;
      else if (active >= 0) choose(active);
    },
    Escape: () => {
      if (popup.hidden) input.value = "";
      close();
    },
  };
  input.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.isComposing) return;
    event.preventDefault();
    keys[event.key]();
  });
  input.addEventListener("input", () => {
    answered = wanted = null;
    activate(-1);
    popup.hidden = false;
    input.setAttribute("aria-expanded", "true");
    later();
  });
  input.addEventListener("click", open);
  input.addEventListener("blur", close);
  return { forget: () => (answered = null) };
}
