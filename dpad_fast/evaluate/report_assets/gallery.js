"use strict";
// The list of cards (only those in view are there) and the panel of one sample.

const CARD_HEIGHT = 268, GAP = 10, CARD_WIDTH = 188;

class Gallery {
  constructor(state, pictures, list) {
    this.state = state;
    this.pictures = pictures;
    this.list = list;
    this.cards = new Map();
    this.waiting = false;
    const later = () => this.refresh();
    addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
  }

  refresh() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.place();
    });
  }

  /** Everything anew: after a filter, an order or a run was chosen. */
  rebuild() {
    for (const card of this.cards.values()) card.remove();
    this.cards.clear();
    this.place();
  }

  columns() {
    return Math.max(1, Math.floor((this.list.clientWidth + GAP) / (CARD_WIDTH + GAP)));
  }

  place() {
    const shown = this.state.shown;
    const columns = Math.max(this.list.clientWidth < 420 ? 2 : 1, this.columns());
    const width = (this.list.clientWidth - GAP * (columns - 1)) / columns;
    const rows = Math.ceil(shown.length / columns);
    this.list.style.height = `${Math.max(0, rows * (CARD_HEIGHT + GAP) - GAP)}px`;
    const top = -this.list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - 400) / (CARD_HEIGHT + GAP))) * columns;
    const end = Math.min(shown.length, Math.ceil((top + innerHeight + 400) / (CARD_HEIGHT + GAP)) * columns);
    const wanted = new Set(shown.slice(first, Math.max(first, end)));
    for (const [i, card] of this.cards) {
      if (!wanted.has(i)) {
        card.remove();
        this.cards.delete(i);
      }
    }
    for (let at = first; at < end; at++) {
      const i = shown[at];
      let card = this.cards.get(i);
      const fresh = card === undefined;
      if (fresh) {
        card = this.card(i);
        this.cards.set(i, card);
      }
      const style = card.style;
      style.width = `${width}px`;
      style.height = `${CARD_HEIGHT}px`;
      style.left = `${(at % columns) * (width + GAP)}px`;
      style.top = `${Math.floor(at / columns) * (CARD_HEIGHT + GAP)}px`;
      if (fresh) this.list.append(card);
      drawLayers(card.querySelector("canvas"), this.state.data.samples[i], this.state.answers(i)[0], this.state.layers);
    }
  }

  card(i) {
    const sample = this.state.data.samples[i];
    const card = element("button", "card");
    card.dataset.id = sample.id;
    card.append(frameOf(this.pictures.of(i), this.state.layers));
    const about = element("div", "about");
    about.append(element("div", "query", sample.query || sample.id), element("div", "facts", this.facts(i)));
    card.append(about);
    card.title = sample.id;
    card.addEventListener("click", () => { location.hash = encodeURIComponent(linked(sample.id)); });
    return card;
  }

  facts(i) {
    const { state } = this;
    const sides = state.lead === state.base ? [state.lead] : [state.base, state.lead];
    const ious = sides.map((s) => state.iou(i, s)).map((iou) => (iou === null ? "-" : iou.toFixed(2)));
    const reason = (state.answers(i)[0] || {}).reason;
    return `${state.ofBoxes ? "box IoU" : "IoU"} ${ious.join(" \u2192 ")}${reason ? ` · ${reason}` : ""}`;
  }
}

function frameOf(picture, layers) {
  const frame = element("div", "frame");
  if (picture) {
    const image = element("img");
    image.decoding = "async";
    image.alt = "";
    image.style.objectFit = "contain";
    image.hidden = !layers.picture;
    image.src = picture;
    frame.append(image);
  } else frame.append(element("span", "none", "no picture"));
  frame.append(element("canvas"));
  return frame;
}

/** The panel of sample i: every answer of every series beside the others. */
function fillPanel(panel, state, pictures, i) {
  const sample = state.data.samples[i];
  panel.replaceChildren(element("p", "ask", sample.query || sample.id));
  const answers = element("div", "answers");
  panel.append(answers);
  state.data.series.forEach((series, s) => {
    const found = state.answers(i, s);
    if (!found.length) return;
    found.forEach((answer, number) => {
      const name = found.length > 1 ? `${series.name} (${number + 1} of ${found.length})` : series.name;
      answers.append(answerOf(name, sample, answer, pictures.of(i), state.layers));
    });
  });
  answers.classList.toggle("alone", answers.children.length === 1);
  redrawPanel(panel, state);
}

function answerOf(name, sample, answer, picture, layers) {
  const box = element("article", "answer");
  box.answer = answer;
  box.sample = sample;
  box.append(element("h3", "", name));
  const frame = frameOf(picture, layers);
  const size = sample.size || [4, 3];
  frame.style.aspectRatio = `${size[0]} / ${size[1]}`;
  frame.style.maxWidth = `calc(60vh * ${(size[0] / size[1]).toFixed(4)})`;
  if (picture || sample.size) box.append(frame);
  const words = element("div", "words");
  box.append(words);
  words.append(numbersOf(answer));
  if (answer.terms) words.append(termsOf(answer.terms));
  for (const [title, text] of [["chain", answer.chain], ["description", answer.caption]]) {
    if (text) words.append(element("h4", "", title), element("pre", "", text.trim()));
  }
  const raw = element("details");
  raw.append(element("summary", "", "whole answer"), element("pre", "raw", answer.text));
  if (answer.text) words.append(raw);
  if (!answer.chain && !answer.caption) raw.open = true;
  return box;
}

function numbersOf(answer) {
  const numbers = element("div", "numbers");
  const known = [
    ["IoU", answer.iou, 3], ["box IoU", answer.box_iou, 3], ["S1", answer.s1, 3], ["S2", answer.s2, 3], ["chain length", answer.tokens, 0],
  ];
  for (const [name, value, digits] of known) {
    if (value !== undefined) numbers.append(element("span", "", `${name} ${value.toFixed(digits)}`));
  }
  if (answer.reason) numbers.append(element("span", "", `reason: ${answer.reason}`));
  return numbers;
}

function termsOf(terms) {
  const table = element("table");
  const head = element("tr");
  for (const title of ["term", "value", "reason"]) head.append(element("th", "", title));
  table.append(head);
  for (const [name, [value, reason]] of Object.entries(terms)) {
    const row = element("tr");
    row.append(element("td", "", name));
    row.append(element("td", value === 0 ? "zero" : "", value === null ? "-" : shortNumber(value)));
    row.append(element("td", "", reason || ""));
    table.append(row);
  }
  return table;
}

function redrawPanel(panel, state) {
  for (const box of panel.querySelectorAll(".answer")) {
    const canvas = box.querySelector("canvas"), image = box.querySelector("img");
    if (canvas) drawLayers(canvas, box.sample, box.answer, state.layers);
    if (image) image.hidden = !state.layers.picture;
  }
}
