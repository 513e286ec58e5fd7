// How a recommended item was found: its digits, one step after the other, and what else the beam held.

import { count, el, icon, percent, tell } from "./dom.js";
import { score } from "./lists.js";

const BEAM_ROWS = 7;
const PAUSE = 1500; // milliseconds between steps

/** Steps of one explained item: number, digits filled in it, digits known after it, items left, the beam's places. */
export function stepsOf(item, beams, total) {
  const steps = [{ number: 0, filled: [], known: [], left: total, beam: [] }];
  const last = Math.max(...item.digits.map((digit) => digit.step));
  for (let number = 1; number <= last; number++) {
    const filled = item.digits.filter((digit) => digit.step === number);
    const before = steps.at(-1);
    steps.push({ number, filled, known: [...before.known, ...filled], left: filled[0]?.items_left ?? before.left, beam: beams[number - 1] ?? [] });
  }
  return steps;
}

/** Codes of an item's digits, in the order of the digits. */
export function codesOf(item) {
  return item.digits.toSorted((a, b) => a.digit - b.digit).map((digit) => digit.code);
}

/** What happens in a step, and what is left after it. */
export function sentences(step, total) {
  if (step.number === 0) return ["Every digit is hidden.", `${count(total, "item")} ${total === 1 ? "is" : "are"} possible.`];
  const left = step.left === 1 ? "Only this item still fits." : `${count(step.left, "item")} still fit.`;
  return [`Step ${step.number}: ${step.filled.map(filling).join("; ")}.`, left];
}

function filling({ digit, code, confidence, rival, rival_confidence: other }) {
  const instead = other > confidence ? `although ${rival} looked likelier (${percent(other)})` : `ahead of ${rival} (${percent(other)})`;
  return `digit ${digit + 1} becomes ${code}, ${percent(confidence)} sure, ${instead}`;
}

/** Whether a partial code may still become the item's. */
export function leadsTo(partial, codes) {
  return partial.every((code, digit) => code === null || code === codes[digit]);
}

export function denoisingPanel(panel, parts, { go }) {
  let steps = [];
  let codes = [];
  let shown = { item: null, total: 0 };
  let now = null; // the step on view
  let timer = null;

  /** Show an item's story; step null is its end. */
  function show(item, answer, total, step) {
    if (item !== shown.item || total !== shown.total) begin(item, answer, total);
    const wanted = Math.min(Math.max(Math.round(step ?? Infinity), 0), steps.length - 1);
    if (wanted !== now) draw(wanted);
  }

  function begin(item, answer, total) {
    pause();
    now = null;
    shown = { item, total };
    steps = stepsOf(item, answer.beams, total);
    codes = codesOf(item);
    parts.chosen.replaceChildren(el("span", { class: "title" }, item.title ?? String(item.item_id)), el("span", { class: "small id" }, String(item.item_id)));
    tell(parts.codeSize, `${count(answer.n_digits, "digit")}, each one of ${count(answer.codebook_size, "code")}`);
    parts.slots.style.setProperty("--digits", answer.n_digits);
    parts.slots.replaceChildren(...item.digits.toSorted((a, b) => a.digit - b.digit).map(slot));
    parts.columns.replaceChildren(...steps.map(column));
    parts.columns.parentElement.style.setProperty("--stops", steps.length);
    parts.slider.max = steps.length - 1;
    parts.story.hidden = false;
    panel.classList.remove("empty");
  }

  function clear() {
    pause();
    shown = { item: null, total: 0 };
    parts.story.hidden = true;
    tell(parts.codeSize, "");
  }

  function draw(step) {
    now = step;
    const { known, filled } = steps[now];
    for (const child of parts.slots.children) {
      const digit = Number(child.dataset.digit);
      const state = filled.some((one) => one.digit === digit) ? "now" : known.some((one) => one.digit === digit) ? "known" : "hidden";
      child.dataset.state = state;
      child.querySelector(".code").textContent = state === "hidden" ? "?" : codes[digit];
      child.querySelector(".sure").hidden = state === "hidden";
      child.querySelector(".when").hidden = state === "hidden";
    }
    [...parts.columns.children].forEach((child, number) => child.classList.toggle("now", number === now));
    parts.sentence.replaceChildren(...sentences(steps[now], shown.total).flatMap((text) => [el("span", {}, text), " "]));
    parts.slider.value = now;
    parts.slider.setAttribute("aria-valuetext", now === 0 ? "start" : `step ${now} of ${steps.length - 1}`);
    parts.back.disabled = now === 0;
    parts.forward.disabled = now === steps.length - 1;
    drawBeam();
  }

  function drawBeam() {
    const { beam, known, number } = steps[now];
    tell(parts.beamTitle, number ? `The search after step ${number}` : "The search");
    const filled = new Set(known.map((one) => one.digit));
    const own = JSON.stringify(codes.map((code, digit) => (filled.has(digit) ? code : null)));
    const rows = beam.map(({ digits, score }, place) => ({ digits, score, place, leads: leadsTo(digits, codes), own: JSON.stringify(digits) === own }));
    const best = rows.slice(0, BEAM_ROWS);
    const further = rows.slice(BEAM_ROWS).filter((row) => row.own);
    tell(parts.beamNote, beamNote(number, [...best, ...further]));
    parts.beam.replaceChildren(...[...best, ...further].map((row) => beamRow(row, rows[0].score)));
  }

  function beamNote(number, rows) {
    if (!number) return "The search follows many partial codes at once and keeps the likeliest, its beam. None has a digit yet.";
    if (!rows.length) return "This search keeps no partial codes that could be shown.";
    const last = number === steps.length - 1 && rows.every((row) => !row.digits.includes(null));
    if (last && rows.some((row) => row.own)) return "The likeliest whole codes; the framed one is this item's.";
    const what = "The likeliest partial codes";
    if (!rows.some((row) => row.leads)) return `${what}. None of these leads to this item; it comes from further down.`;
    if (!rows.some((row) => row.own)) return `${what}. ✓ can still become this item.`;
    return `${what}. ✓ can still become this item; the framed one is how it was found.`;
  }

  function move(by) {
    pause();
    goTo(now + by);
  }

  function goTo(step) {
    if (step >= 0 && step < steps.length) go(step);
  }

  function play() {
    if (now === steps.length - 1) goTo(0);
    timer = setInterval(() => {
      goTo(now + 1);
      if (now === steps.length - 1) pause();
    }, PAUSE);
    drawPlay();
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    drawPlay();
  }

  function drawPlay() {
    parts.play.replaceChildren(icon(timer === null ? "play" : "pause"));
    parts.play.setAttribute("aria-label", timer === null ? "Play" : "Pause");
  }

  function column(step) {
    const made = el(
      "div",
      { on: { click: () => move(step.number - now) }, data: { step: step.number } },
      el("span", { class: "left" }, step.left.toLocaleString("en")),
      el("span", { class: "bar" }),
      el("span", { class: "small" }, step.number ? `step ${step.number}` : "start"),
    );
    made.style.setProperty("--share", Math.log(step.left + 1) / Math.log(shown.total + 1));
    return made;
  }

  parts.back.addEventListener("click", () => move(-1));
  parts.forward.addEventListener("click", () => move(1));
  parts.play.addEventListener("click", () => (timer === null ? play() : pause()));
  parts.slider.addEventListener("input", () => move(Number(parts.slider.value) - now));
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const taken = event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest("input, textarea, select");
    if (!by || taken || parts.story.hidden) return;
    event.preventDefault();
    move(by);
  });
  drawPlay();
  return { show, clear };
}

function slot({ digit, code, step, confidence, rival, rival_confidence: other }) {
  return el(
    "li",
    { data: { digit, code, step } },
    el("span", { class: "top-line small" }, el("span", {}, `digit ${digit + 1}`), el("span", { class: "when" }, `step ${step}`)),
    el("span", { class: "code" }, "?"),
    el("span", { class: "sure" }, gauge(`${percent(confidence)} for ${code}`, confidence, "own"), gauge(`${percent(other)} for ${rival}`, other, "rival", "The likeliest other code")),
  );
}

function gauge(text, share, kind, title) {
  const bar = el("span", { class: "gauge" });
  bar.style.setProperty("--share", share);
  return el("span", { class: kind, title, data: { share } }, el("span", { class: "small" }, text), bar);
}

function beamRow({ digits, score: value, place, leads, own }, best) {
  const cells = digits.map((code) => el("span", { class: code === null ? "cell unknown" : "cell" }, code === null ? "·" : String(code)));
  const bar = el("span", { class: "gauge" });
  bar.style.setProperty("--share", Math.exp(value - best));
  const words = digits.map((code) => code ?? "unknown").join(", ");
  return el(
    "li",
    { class: [leads && "leads", own && "own", place >= BEAM_ROWS && "further"].filter(Boolean).join(" "), data: { digits: JSON.stringify(digits) } },
    el("span", { class: "place" }, String(place + 1)),
    el("span", { class: "cells", role: "img", "aria-label": words }, ...cells),
    el("span", { class: "mark" }, ...(leads ? [icon("check"), el("span", { class: "unseen" }, own ? "became this item" : "can become this item")] : [])),
    bar,
    el("span", { class: "score", title: "Log-probability" }, score(value)),
  );
}
