"use strict";
// Controls, keys and links; the other files are pasted before this one.

const LAYERS = [
  ["picture", "picture", "i"], ["box", "answer's box", "b"], ["truth", "true box", "t"], ["mask", "answer's mask", "m"],
  ["truthMask", "true mask", "g"], ["points", "points", "p"],
];
const ORDERS = [
  ["given", "as given"], ["worst", "worst first"], ["best", "best first"], ["improved", "most improved"],
  ["worsened", "most worsened"], ["disagreeing", "most disagreeing"], ["longest", "longest chain"],
];
const byId = (id) => document.getElementById(id);

function choice(id, options, act) {
  const select = byId(id);
  for (const [value, text] of options) {
    const option = element("option", "", text);
    option.value = value;
    select.append(option);
  }
  select.addEventListener("change", () => act(select.value));
  return select;
}

function start() {
  const state = new State(JSON_OF("data"));
  const pictures = new Pictures(state.data.block);
  const gallery = new Gallery(state, pictures, byId("list"));
  const page = { state, pictures, gallery, open: null };
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light", page);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) =>
    setTheme(event.matches ? "dark" : "light", page));
  byId("theme").addEventListener("click", () => setTheme(theme() === "dark" ? "light" : "dark", page));
  byId("ask-help").addEventListener("click", () => showHelp(true));
  addEventListener("resize", () => { sizeCharts(); redrawPanel(byId("sample"), state); });
  addEventListener("hashchange", () => follow(page));
  addEventListener("keydown", (event) => onKey(event, page));
  controls(page);
  panelButtons(page);
  update(page);
  follow(page);
  document.documentElement.dataset.ready = "yes";
  performance.mark("ready");
}

function setTheme(name, page) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "light" : "dark";
  drawCharts(page.state.data.curves);
}

function controls(page) {
  const { state } = page;
  const again = (change) => (value) => { change(value); update(page); };
  const series = state.data.series.map((one, i) => [String(i), one.name]);
  choice("lead", series, again((value) => { state.lead = Number(value); })).value = String(state.lead);
  choice("base", series, again((value) => { state.base = Number(value); })).value = String(state.base);
  byId("lead-of").hidden = byId("base-of").hidden = series.length < 2;
  const terms = state.terms().flatMap((name) => [[`0${name}`, `${name} is 0`], [`1${name}`, `${name} above 0`]]);
  choice("term", [["", "any term"], ...terms], again((value) => { state.filters.term = value; }));
  const reasons = state.reasons().map((name) => [name, name]);
  choice("reason", [["", "any reason"], ["-", "no reason"], ...reasons], again((value) => { state.filters.reason = value; }));
  const several = series.length > 1 ? ORDERS : ORDERS.filter(([name]) => !/improved|worsened|disagreeing/.test(name));
  choice("order", several, again((value) => { state.order = value; }));
  let typing = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => { state.filters.text = event.target.value.toLowerCase(); update(page); }, 120);
  });
  for (const [name, text, key] of LAYERS) {
    for (const place of document.querySelectorAll(".layers")) {
      const button = element("button", "", text);
      button.dataset.layer = name;
      button.title = `${text} (${key})`;
      button.addEventListener("click", () => toggle(page, name));
      place.append(button);
    }
  }
  pressLayers(state);
}

function toggle(page, name) {
  page.state.layers[name] = !page.state.layers[name];
  pressLayers(page.state);
  for (const image of byId("list").querySelectorAll("img")) image.hidden = !page.state.layers.picture;
  page.gallery.place();
  redrawPanel(byId("sample"), page.state);
}

function pressLayers(state) {
  for (const button of document.querySelectorAll("[data-layer]")) {
    button.setAttribute("aria-pressed", String(state.layers[button.dataset.layer]));
  }
}

function update(page) {
  const { state } = page;
  state.apply();
  byId("count").textContent = `${state.shown.length} of ${state.data.samples.length}`;
  byId("none").hidden = state.shown.length > 0;
  page.gallery.rebuild();
}

/** Open what the address names. */
function follow(page) {
  let id = "";
  try {
    id = decodeURIComponent(location.hash.slice(1));
  } catch {
    id = location.hash.slice(1);
  }
  const i = page.state.places.get(id);
  const closed = page.open === null;
  page.open = i === undefined ? null : i;
  byId("cover").hidden = i === undefined;
  document.body.classList.toggle("covered", i !== undefined);
  // What is covered takes no Tab.
  for (const behind of document.querySelectorAll("header, main")) behind.inert = i !== undefined;
  if (i === undefined) return;
  const at = page.state.shown.indexOf(i);
  // An id that writes from right to left turns its own letters round, not what stands beside it.
  const place = at < 0 ? " (not among those shown)" : ` · ${at + 1} of ${page.state.shown.length}`;
  byId("where").replaceChildren(element("bdi", "", id), place);
  byId("previous").disabled = at === 0;
  byId("next").disabled = at === page.state.shown.length - 1;
  fillPanel(byId("sample"), page.state, page.pictures, i);
  byId("panel").scrollTop = 0;
  if (closed) byId("panel").focus();
}

function step(page, by) {
  const { shown, data } = page.state;
  if (!shown.length) return;
  const at = page.open === null ? -1 : shown.indexOf(page.open);
  const next = page.open === null || at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by));
  // Replaced, not added: going back leaves the panel and does not walk through every sample that was seen.
  const hash = `#${encodeURIComponent(linked(data.samples[shown[next]].id))}`;
  if (page.open === null) location.hash = hash;
  else { history.replaceState(null, "", hash); follow(page); }
}

function close(page) {
  history.replaceState(null, "", location.pathname + location.search);
  const left = page.open;
  follow(page);
  const card = page.gallery.cards.get(left);
  if (card) card.focus({ preventScroll: true });
}

function panelButtons(page) {
  byId("next").addEventListener("click", () => step(page, 1));
  byId("previous").addEventListener("click", () => step(page, -1));
  byId("close").addEventListener("click", () => close(page));
  byId("cover").addEventListener("click", (event) => { if (event.target === byId("cover")) close(page); });
  byId("help").addEventListener("click", () => showHelp(false));
  byId("copy").addEventListener("click", () => {
    const told = (text) => { byId("copy").textContent = text; setTimeout(() => { byId("copy").textContent = "copy link"; }, 1500); };
    if (navigator.clipboard) navigator.clipboard.writeText(location.href).then(() => told("copied"), () => told(location.hash));
    else told(location.hash);
  });
}

function showHelp(shown) {
  byId("help").hidden = !shown;
}

function onKey(event, page) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape") {
    if (!byId("help").hidden) showHelp(false);
    else if (typing) event.target.blur();
    else if (page.open !== null) close(page);
    return;
  }
  if (typing) return;
  const layer = LAYERS.find((entry) => entry[2] === event.key);
  const acts = {
    j: () => step(page, 1), ArrowRight: () => step(page, 1), k: () => step(page, -1), ArrowLeft: () => step(page, -1),
    d: () => byId("theme").click(), "?": () => showHelp(byId("help").hidden),
    "/": () => { if (page.open !== null) close(page); byId("search").focus(); },
  };
  const act = layer ? () => toggle(page, layer[0]) : acts[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

start();
