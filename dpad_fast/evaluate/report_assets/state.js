"use strict";
// What is shown: the data, the filters, the order; nothing here touches the page.

const JSON_OF = (id) => JSON.parse(document.getElementById(id).textContent);

/** A new element with a class and a text; the text is never read as HTML. */
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** An id as links have it: half a surrogate pair, which no address can hold, is the sign for what is no character. */
function linked(id) {
  return id.replace(/\p{Surrogate}/gu, "\ufffd");
}

class State {
  constructor(data) {
    this.data = data;
    this.places = new Map(data.samples.map((sample, i) => [linked(sample.id), i]));
    const last = data.series.length - 1;
    this.lead = Math.max(0, last);
    // Against the same run before training; where it has no other moment, against the first result.
    const own = data.series.findIndex((one) => one.run === (data.series[last] || {}).run);
    this.base = own >= 0 && own < last ? own : 0;
    this.filters = { text: "", term: "", reason: "" };
    this.order = "given";
    this.layers = { picture: true, box: true, truth: true, mask: true, truthMask: false, points: true };
    this.shown = data.samples.map((_, i) => i);
    this.texts = null;
    // Data without masks, which is measured by its boxes.
    const all = data.answers.flat(2);
    this.ofBoxes = all.every((answer) => answer.iou === undefined) && all.some((answer) => answer.box_iou !== undefined);
  }

  answers(i, series = this.lead) {
    return (this.data.answers[series] || [])[i] || [];
  }

  /** Mean IoU of the answers of one sample in one series, of boxes where there is no mask at all; or null. */
  iou(i, series = this.lead) {
    const key = this.ofBoxes ? "box_iou" : "iou";
    const found = this.answers(i, series).map((answer) => answer[key]).filter((iou) => iou !== undefined);
    return found.length ? found.reduce((a, b) => a + b, 0) / found.length : null;
  }

  /** Largest minus smallest IoU over the series. */
  spread(i) {
    const found = this.data.series.map((_, s) => this.iou(i, s)).filter((iou) => iou !== null);
    return found.length > 1 ? Math.max(...found) - Math.min(...found) : null;
  }

  gain(i) {
    const before = this.iou(i, this.base), after = this.iou(i);
    return before === null || after === null ? null : after - before;
  }

  length(i) {
    const found = this.answers(i).map((answer) => answer.tokens || 0);
    return found.length ? Math.max(...found) : null;
  }

  textOf(i) {
    if (this.texts === null) {
      this.texts = this.data.samples.map((sample, at) =>
        [sample.id, sample.query, ...this.data.answers.flatMap((one) => one[at].map((answer) => answer.text))]
          .join("\n").toLowerCase());
    }
    return this.texts[i];
  }

  matches(i) {
    const { text, term, reason } = this.filters;
    if (text && !this.textOf(i).includes(text)) return false;
    const answers = this.answers(i);
    if (reason && !answers.some((answer) => (reason === "-" ? !answer.reason : answer.reason === reason))) return false;
    if (!term) return true;
    const name = term.slice(1), zero = term[0] === "0";
    return answers.some((answer) => {
      const found = (answer.terms || {})[name];
      return found !== undefined && found[0] !== null && (found[0] === 0) === zero;
    });
  }

  /** Filter and sort; samples without the number that is sorted by come last, and ties keep the given order. */
  apply() {
    const orders = {
      given: null,
      worst: (i) => this.iou(i),
      best: (i) => negated(this.iou(i)),
      improved: (i) => negated(this.gain(i)),
      worsened: (i) => this.gain(i),
      disagreeing: (i) => negated(this.spread(i)),
      longest: (i) => negated(this.length(i)),
    };
    this.shown = this.data.samples.map((_, i) => i).filter((i) => this.matches(i));
    const key = orders[this.order];
    if (!key) return;
    const keys = new Map(this.shown.map((i) => [i, key(i)]));
    const value = (i) => (keys.get(i) === null ? Infinity : keys.get(i));
    this.shown.sort((a, b) => (value(a) === value(b) ? a - b : value(a) - value(b)));
  }

  terms() {
    return [...new Set(this.data.answers.flat(2).flatMap((answer) => Object.keys(answer.terms || {})))];
  }

  reasons() {
    const counts = new Map();
    for (const answer of this.data.answers.flat(2)) {
      if (answer.reason) counts.set(answer.reason, (counts.get(answer.reason) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  }
}

function negated(value) {
  return value === null ? null : -value;
}

/** The pictures lie in blocks, read when the first of a block is asked for. */
class Pictures {
  constructor(block) {
    this.block = block;
    this.read = new Map();
  }

  of(i) {
    const number = Math.floor(i / this.block);
    if (!this.read.has(number)) {
      const there = document.getElementById(`pictures-${number}`);
      this.read.set(number, there ? JSON.parse(there.textContent) : []);
    }
    return this.read.get(number)[i % this.block] || null;
  }
}
