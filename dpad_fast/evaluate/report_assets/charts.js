"use strict";
// The curves, drawn by uPlot (vendor/uplot).

const COLOURS = {
  light: ["#2f6fb5", "#c2473a", "#7a5ab5", "#2e8b57", "#8a5a2b", "#0f8b8d", "#b8860b", "#c2449a"],
  dark: ["#6fb1ff", "#ff8f7d", "#bda0ff", "#6fd69b", "#d9a06a", "#5ad1d3", "#f0c14b", "#ff8ad4"],
};
let plots = [];

function theme() {
  return document.documentElement.dataset.theme === "dark" ? "dark" : "light";
}

function drawCharts(groups) {
  for (const plot of plots) plot.destroy();
  plots = [];
  for (const place of document.querySelectorAll("[data-curves]")) {
    place.replaceChildren();
    const panels = groups[Number(place.dataset.curves)];
    place.append(legendOf(panels));
    const grid = element("div", "charts");
    place.append(grid);
    for (const panel of panels) grid.append(chartOf(panel));
  }
  requestAnimationFrame(sizeCharts);
}

function colourOf(line) {
  return COLOURS[theme()][line.arm % COLOURS.light.length];
}

/** Beyond the last colour they begin again, dashed. */
function dashOf(line) {
  return [[], [7, 4], [2, 3]][Math.floor(line.arm / COLOURS.light.length) % 3];
}

function keyOf(line) {
  const key = element("span", "key"), colour = colourOf(line), [on, off] = dashOf(line);
  key.style.background = on ? `repeating-linear-gradient(90deg, ${colour} 0 ${on}px, transparent 0 ${on + off}px)` : colour;
  return key;
}

function legendOf(panels) {
  const legend = element("div", "legend");
  const seen = new Set();
  for (const line of panels.flatMap((panel) => panel.lines)) {
    if (seen.has(line.arm)) continue;
    seen.add(line.arm);
    const entry = element("span", "", "");
    entry.append(keyOf(line), line.of);
    legend.append(entry);
  }
  return legend;
}

/** One panel: raw values faint, their running mean strong, and what stands under the pointer in words. */
function chartOf(panel) {
  const box = element("div", "chart");
  const told = element("div", "told");
  const place = element("div");
  box.append(element("h4", "", panel.title), place, told);
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--soft").trim(), edge = style.getPropertyValue("--edge").trim();
  const axis = { stroke: ink, grid: { stroke: edge, width: 1 }, ticks: { stroke: edge, width: 1 }, font: "11px system-ui" };
  const one = panel.steps.length < 2;
  const series = [{}];
  const data = [panel.steps];
  for (const line of panel.lines) {
    series.push({ stroke: colourOf(line), width: 1, alpha: 0.3, dash: dashOf(line), spanGaps: true, points: { show: one } });
    series.push({ stroke: colourOf(line), width: 2, dash: dashOf(line), spanGaps: true, points: { show: one } });
    data.push(line.values, line.mean);
  }
  const options = {
    width: 320, height: 206, series, legend: { show: false }, scales: { x: { time: false } },
    axes: [
      { ...axis, size: 26, label: "step", labelSize: 16, labelGap: 0, labelFont: axis.font }, { ...axis, size: 48 },
    ], cursor: { points: { size: 6 }, drag: { x: true, y: false } },
    hooks: { setCursor: [(plot) => tell(plot, panel, told)] },
  };
  plots.push(new uPlot(options, data, place));
  return box;
}

function tell(plot, panel, told) {
  const at = plot.cursor.idx;
  told.replaceChildren();
  if (at === null || at === undefined) return;
  told.append(`step ${panel.steps[at]}`);
  for (const line of panel.lines) {
    if (line.values[at] === null) continue;
    const key = keyOf(line);
    key.style.marginLeft = ".6rem";
    key.title = line.name;
    told.append(key, shortNumber(line.values[at]));
  }
}

function shortNumber(value) {
  return Number(value.toPrecision(4)).toString();
}

function sizeCharts() {
  for (const plot of plots) {
    const width = plot.root.parentElement.clientWidth;
    if (width && width !== plot.width) plot.setSize({ width, height: plot.height });
  }
}
