// The explorer: what is on view is kept in the address, and every panel is drawn from it.

import { addressOf, eventOf, K, number, readAddress, WIDTHS } from "./address.js";
import { explain, getItem, getModel, Latest, load, MOST_EXPLAINED, Problem, recommend, similarTo } from "./api.js";
import { questionFields } from "./context.js";
import { denoisingPanel } from "./denoising.js";
import { count, el, partsOf, say, tell, tellProblem } from "./dom.js";
import { historyPanel } from "./history.js";
import { rankedRows } from "./lists.js";
import { searchBox } from "./search.js";
import { merged, NOTHING, timesOf, written } from "./told.js";

const SIMILAR = 5;
const BEAM_SHOWN = 64; // asked for, so that the chosen item's place is known also where it is far down

const panels = Object.fromEntries(["history", "recommended", "similar", "denoising"].map((id) => [id, document.getElementById(id)]));
const parts = Object.fromEntries(Object.entries(panels).map(([id, panel]) => [id, partsOf(panel)]));
const latest = Object.fromEntries(["recommended", "similar", "denoising"].map((id) => [id, new Latest(panels[id])]));

let view = readAddress(location.hash);
let model = null;
let now = written(Date.now()); // of the question on view, which asks at this moment unless another one is said
let list = null; // the recommendations on view
let drawn = null; // the row that is marked as chosen
let story = null; // their explanation
const asked = { list: "", similar: "" }; // what the panels show or wait for

// ---- titles of items, from any answer ------------------------------------------------------------------------------

const items = new Map();
const titles = {
  of: (id) => items.get(String(id)) ?? { title: String(id) },
  remember: ({ item_id: id, title, recommendable = true }) => items.set(String(id), { title: title ?? String(id), known: true, recommendable }),
};

/** Ask for the titles of a history that came with the address. */
async function lookUp(ids) {
  await Promise.all(
    [...new Set(ids)].filter((id) => !items.has(id)).map(async (id) => {
      try {
        titles.remember({ ...(await getItem(id)), item_id: id });
      } catch (error) {
        if (error.status === 404) items.set(id, { title: id, known: false });
      }
    }),
  );
}

// ---- what is on view -----------------------------------------------------------------------------------------------

/** Go to another view; `replace` makes no step for 'Back'. */
function go(change, { replace = false } = {}) {
  view = { ...view, ...change };
  window.history[replace ? "replaceState" : "pushState"](null, "", addressOf(view));
  show();
}

function changeHistory(history, said) {
  go({ history, item: null, step: null });
  if (said) say(said);
}

function add(item) {
  titles.remember(item);
  changeHistory([...view.history, eventOf(item.item_id)], `${titles.of(item.item_id).title} added to the history`);
}

function showSimilar(item) {
  go({ similar: String(item.item_id ?? item) });
  bring("similar");
}

function choose(item) {
  go({ item: String(item.item_id) });
  bring("denoising");
}

/** In a narrow window, where panels stand one below the other, go to the one that was asked for. */
function bring(id) {
  if (!matchMedia("(max-width: 820px)").matches) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  panels[id].scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

const told = () => model?.told ?? NOTHING;

function show() {
  if (listKey() !== asked.list) now = written(Date.now());
  history_.show(view.history, told(), timesOf(view, now));
  showControls();
  showList();
  showSimilarItems();
  showStory();
}

/** Draw the history again once the titles of its items are there. */
async function showTitles() {
  const ids = [...view.history.map(({ id }) => id), ...(view.similar === null ? [] : [view.similar])];
  if (ids.every((id) => items.has(id))) return;
  await lookUp(ids);
  show();
}

// ---- recommendations -----------------------------------------------------------------------------------------------

const controls = Object.fromEntries(["k", ...WIDTHS, "exclude"].map((id) => [id, document.getElementById(id)]));

function showControls() {
  controls.k.value = view.k;
  for (const name of WIDTHS) {
    const shown = view[name] !== null || (model !== null && model[name] !== null);
    for (const part of [controls[name], document.querySelector(`label[for=${name}]`)]) part.hidden = !shown;
    controls[name].value = view[name] ?? "";
    controls[name].placeholder = model?.[name] ?? "";
  }
  controls.exclude.checked = view.excludeSeen;
  question.show(view, told(), now);
}

/** What the list depends on. */
const listKey = () => JSON.stringify([view.history, view.k, ...WIDTHS.map((name) => view[name]), view.excludeSeen, view.at, view.user]);

function showList() {
  const key = listKey();
  if (key !== asked.list) {
    asked.list = key;
    if (view.history.length) load(latest.recommended, (signal) => recommend(view, told(), now, signal), listCame, listFailed);
    else clearList();
  } else if (list && drawn !== chosenId()) drawRows();
}

function clearList() {
  latest.recommended.cancel();
  tellFields(null);
  list = null;
  parts.recommended.problem.hidden = true;
  parts.recommended.list.replaceChildren();
  parts.recommended.keys.hidden = true;
  tell(parts.recommended.note, "What the model would recommend next stands here as soon as the history holds an item.");
  clearStory("");
}

function listCame(answer) {
  list = answer;
  list.items.forEach(titles.remember);
  tellFields(null);
  parts.recommended.problem.hidden = true;
  tell(parts.recommended.note, listNote(answer));
  say(count(answer.items.length, "recommendation"), "answers");
  parts.recommended.keys.hidden = !answer.items.length || !model?.explains;
  drawRows();
  noticeModel(answer.model);
  askForStory();
}

function listNote({ items: found, unknown }) {
  if (unknown === view.history.length) return "No item of the history is in the catalogue, so there is nothing to recommend by.";
  const passed = unknown ? `${count(unknown, "item")} of the history ${unknown === 1 ? "is" : "are"} not in the catalogue and passed over. ` : "";
  return found.length ? passed : `${passed}No item is left to recommend.`;
}

function listFailed(problem) {
  clearList();
  const settings = tellFields(problem);
  tell(parts.recommended.note, settings ? "The list comes back when the setting above is mended." : "");
  if (!settings) tellProblem(parts.recommended.problem, problem, again);
}

/** Tell a problem with k, beam or candidates beside it; false where it is none of theirs. */
function tellFields(problem) {
  const found = ["k", ...WIDTHS].filter((name) => {
    const text = problem?.of(`#/${name}`) ?? "";
    tell(document.getElementById(`${name}-problem`), text && `${text}.`);
    controls[name].setAttribute("aria-invalid", String(Boolean(text)));
    return text;
  });
  return found.length > 0;
}

function again() {
  asked.list = asked.similar = "";
  show();
}

function drawRows() {
  const focused = document.activeElement.closest("#recommended .ranked li");
  const place = [...parts.recommended.list.children].indexOf(focused);
  const part = document.activeElement.dataset.act;
  drawn = chosenId();
  parts.recommended.list.replaceChildren(...rankedRows(list.items, { choose: model?.explains ? choose : null, add, similar: showSimilar }, drawn));
  if (focused) refocus(focused.dataset.item, place, part);
}

/** Give the focus back to an item's row, or to the one that stands in its place now. */
function refocus(id, place, part) {
  const rows = [...parts.recommended.list.children];
  const row = rows.find((child) => child.dataset.item === id) ?? rows[Math.min(place, rows.length - 1)];
  row?.querySelector(part ? `[data-act=${part}]` : ".name").focus();
}

function chosenId() {
  const ids = (list?.items ?? []).map((item) => String(item.item_id));
  return model?.explains ? (ids.includes(view.item) ? view.item : ids[0]) : undefined;
}

// ---- similar items -------------------------------------------------------------------------------------------------

function showSimilarItems() {
  panels.similar.hidden = view.similar === null;
  tell(parts.similar.note, `to ${titles.of(view.similar).title}`);
  const key = JSON.stringify(view.similar);
  if (key === asked.similar) return;
  asked.similar = key;
  if (view.similar === null) return latest.similar.cancel();
  const id = view.similar;
  parts.similar.list.replaceChildren();
  parts.similar.problem.hidden = true;
  load(latest.similar, (signal) => similarTo(id, SIMILAR, signal), similarCame, similarFailed);
}

function similarCame({ items: found }) {
  found.forEach(titles.remember);
  parts.similar.list.replaceChildren(...rankedRows(found, { choose: null, add, similar: showSimilar }));
  say(count(found.length, "similar item"), "answers");
}

function similarFailed(problem) {
  const unknown = problem.of("#/item_id");
  tellProblem(parts.similar.problem, unknown ? new Problem("This item is not in the catalogue.", problem.status) : problem, again);
}

// ---- how an item was found -----------------------------------------------------------------------------------------

function clearStory(note) {
  latest.denoising.cancel();
  story = null;
  denoising.clear();
  parts.denoising.problem.hidden = true;
  tell(parts.denoising.note, note || (model && !model.explains ? cannotExplain() : "Choose a recommended item to watch how its digits were filled in."));
}

const BY_DIGITS = parts.denoising.caption.textContent;
const BY_ITEMS =
  "Every item has a short code, its semantic ID, in which similar items share digits. This model ranks whole items; on view is how it would fill in the digits of each item of the list, the surest one first.";

const cannotExplain = () =>
  `This model (${model.recommender}) fills in no digits, so there is nothing to watch. Only masked diffusion (hybrid, diffgrm) can be explained.`;

function askForStory() {
  clearStory("");
  if (!model?.explains || !list.items.length) return;
  load(
    latest.denoising,
    (signal) => explain(view, model, now, BEAM_SHOWN, signal),
    (answer) => {
      story = answer;
      noticeModel(answer.model);
      showStory();
    },
    (problem) => tellProblem(parts.denoising.problem, problem, askForStory),
  );
}

function showStory() {
  if (!story) return;
  const item = story.items.find((one) => String(one.item_id) === chosenId());
  tell(parts.denoising.note, item ? explainedNote() : notExplained());
  if (item) denoising.show(item, story, startingItems(), view.step);
  else denoising.clear();
}

/** What the explanation of an item leaves unsaid; the caption says it of models that rank whole items. */
function explainedNote() {
  const unsaid = model.candidates === null ? story.note : "";
  return story.rules_aside ? `${unsaid} The rules of this server had a say in its lists, and none here.`.trim() : unsaid;
}

/** Why there is no explanation of the chosen item. */
function notExplained() {
  const place = list.items.findIndex((one) => String(one.item_id) === chosenId());
  if (place >= MOST_EXPLAINED) return `Only the first ${MOST_EXPLAINED} recommendations can be explained.`;
  if (!story.rules_aside) return "Asked again, the model finds other items, and this one is not among them.";
  return "Rules of the server have brought this item into the list; only items that the model finds without them can be explained.";
}

/** Items that can be recommended before any digit is known. */
function startingItems() {
  const seen = new Set(view.history.map(({ id }) => id).filter((id) => titles.of(id).known && titles.of(id).recommendable));
  return model.recommendable - (view.excludeSeen ? seen.size : 0);
}

// ---- the model -----------------------------------------------------------------------------------------------------

/** Another model answers than the one in the header: ask for everything anew. */
function noticeModel(version) {
  if (!model || model.model === version) return;
  model.model = version;
  items.clear();
  search.forget();
  history_.forget();
  start();
}

async function start() {
  try {
    model = await getModel();
  } catch (problem) {
    tell(document.getElementById("model"), problem.message);
    return;
  }
  showModel();
  again();
  showTitles();
}

function showModel() {
  const size = model.recommendable === model.items ? count(model.items, "item") : `${model.recommendable.toLocaleString("en")} of ${count(model.items, "item")}`;
  const facts = { model: model.recommender, version: model.model, catalogue: size };
  document.getElementById("model").replaceChildren(...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  tell(parts.denoising.caption, model.candidates === null ? BY_DIGITS : BY_ITEMS);
}

// ---- start ---------------------------------------------------------------------------------------------------------

const history_ = historyPanel(panels.history, parts.history, {
  titles,
  change: changeHistory,
  refine: (history) => go({ history }, { replace: true }),
  similar: showSimilar,
});
const question = questionFields(parts.recommended.told, ({ at = view.at, user = {} }) => go({ at, user: merged(view.user, user) }, { replace: true }));
const search = searchBox(document.getElementById("query"), parts.history, { add, seen: titles.remember });
const denoising = denoisingPanel(panels.denoising, parts.denoising, { go: (step) => go({ step }, { replace: true }) });

controls.k.addEventListener("change", () => go({ k: number(controls.k.value) ?? K }));
for (const name of WIDTHS) controls[name].addEventListener("change", () => go({ [name]: number(controls[name].value) }));
controls.exclude.addEventListener("change", () => go({ excludeSeen: controls.exclude.checked }));
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
parts.similar.close.addEventListener("click", () => go({ similar: null }));
window.addEventListener("popstate", () => {
  view = readAddress(location.hash);
  show();
  showTitles();
});

start();
