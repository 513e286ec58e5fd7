// What is on view, kept in the address: it can be shared, reloaded, and 'Back' leads to what was there before.

export const K = 10;
export const WIDTHS = ["beam", "candidates"]; // how far a model searches: each has one of them, or none

const EVENT = "event.", USER = "user."; // before the names of columns

/** An event of the history of which only its item is said. */
export const eventOf = (id) => ({ id: String(id), time: null, values: {} });

/**
 * The view of an address: `#history=item+1&history=item+2&k=5&beam=8&seen=keep&item=item+7&step=2&similar=item+1`.
 * Of models that are told more: `&at=2030-01-31T19:00&user.plan=paid`, and of every event of the history one
 * `&time=2030-01-30T08:05` and one `&event.device=phone`, empty where nothing is said.
 */
export function readAddress(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const columns = (prefix) => [...new Set(given.keys())].filter((name) => name.startsWith(prefix));
  const said = Object.fromEntries(["time", ...columns(EVENT)].map((name) => [name, given.getAll(name)]));
  const values = (place) => columns(EVENT).map((name) => [name.slice(EVENT.length), said[name][place]]).filter(([, value]) => value);
  return {
    history: given.getAll("history").map((id, place) => ({ id, time: moment(said.time[place]), values: Object.fromEntries(values(place)) })),
    at: moment(given.get("at")),
    user: Object.fromEntries(columns(USER).map((name) => [name.slice(USER.length), given.get(name)])),
    k: number(given.get("k")) ?? K,
    ...Object.fromEntries(WIDTHS.map((name) => [name, number(given.get(name))])),
    excludeSeen: given.get("seen") !== "keep",
    item: given.get("item"),
    step: number(given.get("step")),
    similar: given.get("similar"),
  };
}

/** The address of a view; what is as usual is left out. */
export function addressOf(view) {
  const given = new URLSearchParams(view.history.map(({ id }) => ["history", id]));
  const columns = [...new Set(view.history.flatMap(({ values }) => Object.keys(values)))];
  if (view.history.some(({ time }) => time !== null)) for (const { time } of view.history) given.append("time", time ?? "");
  for (const column of columns) for (const { values } of view.history) given.append(EVENT + column, values[column] ?? "");
  if (view.at !== null) given.set("at", view.at);
  for (const [column, value] of Object.entries(view.user)) given.set(USER + column, value);
  if (view.k !== K) given.set("k", view.k);
  if (!view.excludeSeen) given.set("seen", "keep");
  for (const name of [...WIDTHS, "item", "step", "similar"]) {
    if (view[name] !== null) given.set(name, view[name]);
  }
  return `${location.pathname}${location.search}${given.size ? `#${given}` : ""}`;
}

/** A moment to the minute; null where none was written. */
function moment(text) {
  return text && /^\d{4}-\d\d-\d\dT\d\d:\d\d$/.test(text) && !Number.isNaN(Date.parse(`${text}Z`)) ? text : null;
}

/** A number that was written, also one that the server will refuse; null where there is none. */
export function number(text) {
  return text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null;
}
