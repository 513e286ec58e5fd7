// What is on view, kept in the address: it can be shared, reloaded, and 'Back' leads to what was there before.

export const K = 10;
export const WIDTHS = ["beam", "candidates"]; // how far a model searches: each has one of them, or none

/** The view of an address: `#history=item+1&history=item+2&k=5&beam=8&seen=keep&item=item+7&step=2&similar=item+1`. */
export function readAddress(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    history: given.getAll("history"),
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
  const given = new URLSearchParams(view.history.map((id) => ["history", id]));
  if (view.k !== K) given.set("k", view.k);
  if (!view.excludeSeen) given.set("seen", "keep");
  for (const name of [...WIDTHS, "item", "step", "similar"]) {
    if (view[name] !== null) given.set(name, view[name]);
  }
  return `${location.pathname}${location.search}${given.size ? `#${given}` : ""}`;
}

/** A number that was written, also one that the server will refuse; null where there is none. */
export function number(text) {
  return text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null;
}
