// Ranked items: recommendations and similar items.

import { el, iconButton } from "./dom.js";

/**
 * Rows of a ranked list.
 * @param items as the server gave them: item_id, title, score.
 * @param acts choose (null: rows cannot be chosen), add, similar; each gets the item.
 * @param chosen id of the row that is marked.
 */
export function rankedRows(items, acts, chosen) {
  return items.map((item, place) => row(item, place, acts, chosen));
}

function row(item, place, { choose, add, similar }, chosen) {
  const id = String(item.item_id);
  const title = item.title ?? id;
  const texts = [el("span", { class: "title" }, title), el("span", { class: "small id" }, id)];
  const keys = { on: { keydown: (event) => key(event, item, { add, similar }) }, "aria-keyshortcuts": "a s" };
  const name = choose
    ? el("button", { type: "button", class: "name", "aria-pressed": String(id === chosen), ...keys, on: { ...keys.on, click: () => choose(item) } }, ...texts)
    : el("span", { class: "name" }, ...texts);
  return el(
    "li",
    { data: { item: id, score: item.score }, class: id === chosen ? "chosen" : null },
    el("span", { class: "place" }, String(place + 1)),
    name,
    el("span", { class: "score", title: item.score === null ? "By a rule" : `Score ${item.score}` }, score(item.score)),
    iconButton("similar", `Items similar to ${title}`, () => similar(item), { "data-act": "similar" }),
    iconButton("plus", `Add ${title} to the history`, () => add(item), { "data-act": "add" }),
  );
}

/** On a row: arrows go up and down, a adds, s shows similar items. */
function key(event, item, { add, similar }) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const here = event.currentTarget.closest("li");
  const acts = {
    ArrowUp: () => here.previousElementSibling?.querySelector(".name").focus(),
    ArrowDown: () => here.nextElementSibling?.querySelector(".name").focus(),
    a: () => add(item),
    s: () => similar(item),
  };
  if (!(event.key in acts)) return;
  event.preventDefault();
  acts[event.key]();
}

/** Scores of all methods in a few characters: -5.599, 0.961, 12.3, 1,480; of items that only a rule brought, none. */
export function score(value) {
  if (value === null) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 2 : 3;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}
