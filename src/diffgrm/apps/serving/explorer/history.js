// The history: chips from oldest to newest, and items to start with while there are none.

import { eventOf } from "./address.js";
import { Latest, findItems, load } from "./api.js";
import { eventFields, fillEvent } from "./context.js";
import { el, icon, iconButton, tell, tellProblem } from "./dom.js";
import { merged } from "./told.js";

const START = 6;

export function historyPanel(panel, parts, { titles, change, refine, similar }) {
  const latest = new Latest(panel);
  let history = []; // events: id, time, values
  let told = null; // what the model is told of them
  let focusOn = null; // the chip that gets the focus once it is drawn
  let drawn = ""; // what the chips show; they are left alone, with their focus, while it stays the same
  let offered = false; // whether items to start with have been asked for

  /** Show events, of a model that is told so of them; `times` are when they were. */
  function show(events, toldOf, times) {
    [history, told] = [events, toldOf];
    const ids = events.map(({ id }) => id);
    const key = JSON.stringify([told, ids.map((id) => [id, titles.of(id)])]);
    if (key !== drawn) draw(ids);
    drawn = key;
    events.forEach((event, place) => fillEvent(parts.chips.children[place].querySelector(".told"), event, times[place]));
    if (!ids.length && !offered) offer();
  }

  function draw(ids) {
    const focused = document.activeElement.closest(".chips li");
    if (focused && focusOn === null) focusOn = [...parts.chips.children].indexOf(focused);
    parts.chips.replaceChildren(...ids.map(chip));
    parts.clear.hidden = parts.hint.hidden = !ids.length;
    parts.start.hidden = Boolean(ids.length);
    if (focusOn !== null) focusChip(Math.min(focusOn, ids.length - 1));
    focusOn = null;
  }

  function focusChip(place) {
    if (place < 0) document.getElementById("query").focus();
    else parts.chips.children[place].querySelector(".title").focus();
  }

  function chip(id, place) {
    const { title, known } = titles.of(id);
    const last = history.length - 1;
    const name = el(
      "button",
      {
        type: "button",
        class: "title",
        title: "Show similar items",
        "aria-keyshortcuts": "Alt+ArrowUp Alt+ArrowDown Delete",
        on: { click: () => similar(id), keydown: (event) => key(event, place) },
      },
      title,
    );
    return el(
      "li",
      { data: { item: id }, class: known === false ? "unknown" : null },
      el("span", { class: "place", "aria-hidden": "true" }, String(place + 1)),
      el("span", { class: "name" }, name, known === false ? el("span", { class: "small" }, "not in the catalogue, passed over") : null),
      iconButton("up", `Move ${title} earlier`, () => move(place, -1), { disabled: place === 0 }),
      iconButton("down", `Move ${title} later`, () => move(place, 1), { disabled: place === last }),
      iconButton("minus", `Remove ${title}`, () => remove(place)),
      eventFields(told, title, (said) => tellMore(place, said)),
    );
  }

  function key(event, place) {
    const acts = { Delete: () => remove(place), Backspace: () => remove(place) };
    if (event.altKey) Object.assign(acts, { ArrowUp: () => move(place, -1), ArrowDown: () => move(place, 1) });
    else Object.assign(acts, { ArrowUp: () => focusChip(Math.max(place - 1, 0)), ArrowDown: () => focusChip(Math.min(place + 1, history.length - 1)) });
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  }

  function move(place, by) {
    const to = place + by;
    if (to < 0 || to >= history.length) return;
    const moved = history.toSpliced(place, 1).toSpliced(to, 0, history[place]);
    focusOn = to;
    change(moved, `${titles.of(history[place].id).title} is now item ${to + 1} of ${history.length}`);
  }

  function remove(place) {
    focusOn = place;
    change(history.toSpliced(place, 1), `${titles.of(history[place].id).title} removed`);
  }

  /** Say more of an event: its time, or its value in a column; null is nothing. */
  function tellMore(place, { time = history[place].time, values = {} }) {
    refine(history.with(place, { ...history[place], time, values: merged(history[place].values, values) }));
  }

  function offer() {
    offered = true;
    load(latest, (signal) => findItems("", START, signal), showOffer, (error) => tellProblem(parts.startProblem, error, offer));
  }

  function showOffer({ items }) {
    parts.startProblem.hidden = true;
    items.forEach(titles.remember);
    tell(parts.startTitle, items.length ? "Often chosen" : "");
    parts.startList.replaceChildren(
      ...items.map((item) =>
        el(
          "li",
          { data: { item: item.item_id } },
          el("button", { type: "button", on: { click: () => change([eventOf(item.item_id)], `${item.title} added`) } }, icon("plus"), item.title),
        ),
      ),
    );
  }

  parts.clear.addEventListener("click", () => {
    focusOn = 0;
    change([], "History cleared");
  });
  return { show, forget: () => (offered = false) };
}
