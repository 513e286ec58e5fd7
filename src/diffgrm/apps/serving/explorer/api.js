// Questions to the server. Addresses are relative, so the page also works behind a path of a proxy.

import { WIDTHS } from "./address.js";
import { besides, eventsOf, listQuestion } from "./told.js";

/** An error answer (RFC 9457 problem details), or no answer at all. */
export class Problem extends Error {
  constructor(detail, status = 0, errors = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }

  /** What is wrong with one field of the request; empty where nothing is. */
  of(pointer) {
    return this.errors.filter((error) => error.pointer === pointer).map((error) => error.detail).join("; ");
  }
}

/** Only the newest of several questions of a panel counts: each one calls off the one before. */
export class Latest {
  #panel;
  #controller = null;

  /** @param panel is marked as busy while a question waits. */
  constructor(panel) {
    this.#panel = panel;
  }

  next() {
    this.cancel();
    this.#controller = new AbortController();
    this.#panel.setAttribute("aria-busy", "true");
    return this.#controller.signal;
  }

  cancel() {
    this.#controller?.abort();
    this.#panel.removeAttribute("aria-busy");
  }
}

/** Ask, and hand the answer to `done`, or the Problem to `failed`, unless a newer question has been asked meanwhile. */
export async function load(latest, question, done, failed) {
  const signal = latest.next();
  let answer, problem;
  try {
    answer = await question(signal);
  } catch (error) {
    problem = error;
  }
  if (signal.aborted) return;
  latest.cancel();
  if (problem) failed(problem);
  else done(answer);
}

/** A JSON value in which whole numbers that JavaScript would round, such as ids of 64 bits, are texts of their digits. */
export function readJson(text) {
  const kept = (part) => (/^-?\d{16,}$/.test(part) ? `"${part}"` : part);
  return JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, kept));
}

async function ask(path, signal, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { ...options, signal, headers: { Accept: "application/json", ...options.headers } });
  } catch {
    throw new Problem("The server cannot be reached.");
  }
  const content = await response.text().then(readJson).catch(() => null);
  if (!response.ok) throw new Problem(content?.detail ?? `The server answered ${response.status}.`, response.status, content?.errors ?? []);
  if (content === null) throw new Problem("The server's answer cannot be read.", response.status);
  return content;
}

export const getModel = (signal) => ask("model", signal);

export const findItems = (query, limit, signal) => ask(`items?${new URLSearchParams({ query, limit })}`, signal);

/** An item by its id; browsers fold "." and ".." out of addresses, so that those are searched for. */
export async function getItem(id, signal) {
  if (![".", ".."].includes(id)) return ask(`items/${encodeURIComponent(id)}`, signal);
  const [item] = (await findItems(id, 1, signal)).items;
  if (item?.item_id !== id) throw new Problem("There is no such item.", 404);
  return item;
}

export async function recommend(view, told, now, signal) {
  const answer = await ask("recommend", signal, listQuestion(view, told, now));
  return { model: answer.model, ...answer.lists[0] };
}

export const similarTo = (id, k, signal) => ask("similar", signal, { item_id: id, k, titles: true });

export const MOST_EXPLAINED = 20;

/** Steps and beams of a list. It must be searched for as the list was: a beam is never narrower than the list is long. */
export function explain(view, model, now, show, signal) {
  const { k, excludeSeen } = view;
  const few = Math.min(k, MOST_EXPLAINED);
  const wide = (name) => (k > few && model[name] !== null ? Math.max(view[name] ?? model[name], k) : view[name]);
  const widths = Object.fromEntries(WIDTHS.map((name) => [name, wide(name)]));
  return ask("explain", signal, {
    history: eventsOf(view, model.told, now), k: few, ...widths, exclude_seen: excludeSeen, show, ...besides(view, model.told, now),
  });
}
