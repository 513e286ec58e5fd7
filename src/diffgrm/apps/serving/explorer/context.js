// Fields for what a model is told besides items: of the moment and the user, and of each event of the history.

import { el } from "./dom.js";
import { momentOf } from "./told.js";

const empty = (columns) => Object.keys(columns).length === 0;

/** A field for a moment, in UTC; emptied, it goes back to what is usual. */
function moment(label, change, attributes = {}) {
  const name = `${label} (UTC)`;
  return el("input", { type: "datetime-local", max: "9999-12-31T23:59", "aria-label": name, title: name, on: { change: (event) => change(event.target.value || null) }, ...attributes });
}

/** A choice among the values of a column, the first of which is none of them. */
function choice(column, values, label, change) {
  const options = [["", `${column}: –`], ...values.map((value) => [value, `${column}: ${value}`])];
  return el("select", { "aria-label": label, title: label, data: { column }, on: { change: (event) => change(event.target.value || null) } }, ...options.map(([value, text]) => el("option", { value }, text)));
}

/** Write a value into a field, which is left alone, with what is being typed there, where it has it. */
function write(field, value) {
  if (field.value !== value) field.value = value;
}

/** Fields of one event: its time, and a choice for each column; null where the model is told of neither. */
export function eventFields(told, title, change) {
  if (!told.times.length && empty(told.event_columns)) return null;
  const time = told.times.length ? moment(`When ${title} was`, (value) => change({ time: value })) : null;
  const columns = Object.entries(told.event_columns).map(([column, values]) =>
    choice(column, values, `${column} of ${title}`, (value) => change({ values: { [column]: value } })),
  );
  return el("span", { class: "told" }, time, ...columns);
}

/** Show an event's time and values in its fields. */
export function fillEvent(fields, { values }, time) {
  if (!fields) return;
  for (const field of fields.children) write(field, field.dataset.column === undefined ? time : (values[field.dataset.column] ?? ""));
}

/** Fields of the moment asked for and of the user, drawn anew for every model. */
export function questionFields(place, change) {
  let drawn = "";

  function draw(told) {
    const at = told.at ? [el("label", {}, "At (UTC) ", moment("At", (value) => change({ at: value }), { id: "at" }))] : [];
    const columns = Object.entries(told.user_columns).map(([column, values]) =>
      choice(column, values, `${column} of the user`, (value) => change({ user: { [column]: value } })),
    );
    place.replaceChildren(...at, ...columns);
    place.hidden = !place.children.length;
  }

  return {
    show(view, told, now) {
      const key = JSON.stringify(told);
      if (key !== drawn) draw(told);
      drawn = key;
      for (const field of place.querySelectorAll("input, select")) {
        write(field, field.id === "at" ? momentOf(view, now) : (view.user[field.dataset.column] ?? ""));
      }
    },
  };
}
