// Charts of the last five minutes. A quantity without values is listed below them instead.

import { byId, part } from "./dom.js";
import { clock, threeFigures } from "./format.js";

export const SPAN_SECONDS = 300;
const SHORTEST_SECONDS = 60;
const HEIGHT = 120;
const MEBI = 2 ** 20;
const GAUGES = ["load", "memory", "temperature", "power"]; // not measured on every machine

// id, title, unit, series, smallest maximum of the scale; series are [name, colour, row => value].
const CHARTS = [
  ["latency", "Latency", "ms", [
    ["p50", "--series-1", (row) => row.p50_ms],
    ["p99", "--series-2", (row) => row.p99_ms],
  ]],
  ["fps", "Speed", "frames/s", [["speed", "--series-3", (row) => row.fps]]],
  ["accuracy", "Accuracy", "% correct so far", [
    ["accuracy", "--series-4", (row) => row.labelled ? 100 * row.correct / row.labelled : null],
  ], 100],
  ["load", "Load", "%", [
    ["DPU", "--series-1", (row) => row.dpu_utilisation === null ? null : 100 * row.dpu_utilisation],
    ["CPU", "--series-2", (row) => row.cpu_percent],
  ], 100],
  ["memory", "Memory", "MiB", [
    ["memory", "--series-6", (row) => row.memory_bytes === null ? null : row.memory_bytes / MEBI],
  ]],
  ["temperature", "Temperature", "°C", [["temperature", "--series-5", (row) => row.temperature_c]]],
];

// The range that charts and timeline show for rows from first to last, in seconds since 1970.
export function span(first, last) {
  return [Math.max(Math.min(first, last - SHORTEST_SECONDS), last - SPAN_SECONDS), last];
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

class Chart {
  constructor([id, title, unit, series, leastTop = 0]) {
    this.card = part("div", "card chart");
    this.card.id = id;
    this.card.hidden = true;
    this.title = title;
    this.unit = unit;
    this.leastTop = leastTop;
    this.rows = [];
    this.plot = null;
    this.#head();
    this.setSeries(series);
    new ResizeObserver(() => this.#resize()).observe(this.card);
  }

  #head() {
    const heading = part("div", "heading");
    const title = part("h3", "", `${this.title} `);
    title.append(part("span", "unit", this.unit));
    this.keys = part("div", "keys");
    this.body = part("div", "plot");
    heading.append(title, this.keys);
    this.card.append(heading, this.body);
  }

  setSeries(series) {
    this.series = series;
    this.values = series.map(([name]) => {
      const key = part("span", "key");
      const line = part("i");
      const value = part("b", "", "–");
      key.append(line, part("span", series.length > 1 ? "" : "unseen", name), value);
      return [key, value];
    });
    this.keys.replaceChildren(...this.values.map(([key]) => key));
    this.recolour();
  }

  // Redraw in the current colour scheme.
  recolour() {
    this.values.forEach(([key], place) => {
      key.firstChild.style.background = colour(this.series[place][1]);
    });
    this.plot?.destroy();
    this.plot = null;
    this.draw(this.rows);
  }

  // Draw the rows, or hide the chart if none of them has a value; return whether it is shown.
  draw(rows) {
    this.rows = rows;
    const data = this.series.map(([, , value]) => rows.map((row) => value(row) ?? null));
    this.card.hidden = data.every((values) => values.every((value) => value === null));
    if (this.card.hidden || !this.card.clientWidth) return !this.card.hidden;
    this.data = [rows.map((row) => row.time), ...data];
    if (this.plot) {
      this.plot.setData(this.data);
    } else {
      this.plot = new uPlot(this.#options(), this.data, this.body);
      this.plot.root.setAttribute("role", "img");
    }
    this.#showValues();
    return true;
  }

  #resize() {
    if (this.plot) this.plot.setSize({ width: this.#width(), height: HEIGHT });
    else this.draw(this.rows);
  }

  #width() {
    return Math.max(200, this.body.clientWidth);
  }

  // Show the values under the cursor, or else the newest.
  #showValues() {
    const at = this.plot?.cursor.idx ?? this.rows.length - 1;
    this.values.forEach(([, value], place) => {
      value.textContent = threeFigures(this.data[place + 1][at]);
    });
    const text = this.series.map(([name], place) => `${name} ${this.values[place][1].textContent}`);
    this.plot?.root.setAttribute("aria-label", `${this.title}, ${this.unit}: ${text.join(", ")}`);
  }

  #options() {
    const font = "12px system-ui, sans-serif";
    const axis = { font, stroke: colour("--quiet"), ticks: { show: false } };
    const grid = { stroke: colour("--line"), width: 1 };
    return {
      width: this.#width(),
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { setScale: false, x: false, y: false }, points: { size: 6 } },
      hooks: { setCursor: [() => this.#showValues()] },
      scales: {
        x: { time: true, range: (_plot, first, last) => span(first, last) },
        y: { range: (_plot, _least, most) => [0, this.#top(most)] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 70, size: 26,
          values: (_plot, times) => times.map((time) => clock(1000 * time)) },
        { ...axis, grid, size: 46, space: 24,
          values: (_plot, values) => values.map((value) => String(Number(value.toPrecision(6)))) },
      ],
      series: [{}, ...this.series.map(([label, tint]) => ({
        label, stroke: colour(tint), width: 1.75, points: { show: false }, spanGaps: false,
      }))],
    };
  }

  #top(most) {
    if (most <= this.leastTop) return this.leastTop;
    return most > 0 ? 1.08 * most : 1;
  }
}

export class Charts {
  constructor() {
    this.rails = "[]";
    this.charts = CHARTS.map((chart) => new Chart(chart));
    this.power = new Chart(["power", "Power", "W per rail", []]);
    this.charts.push(this.power);
    byId("charts").append(...this.charts.map(({ card }) => card));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const chart of this.charts) chart.recolour();
    });
  }

  draw(rows) {
    const rails = JSON.stringify([...new Set(rows.flatMap((row) => Object.keys(row.watts ?? {})))]);
    if (rails !== this.rails) this.#setRails(rails);
    const missing = this.charts.filter((chart) => !chart.draw(rows) && GAUGES.includes(chart.card.id));
    const names = missing.map(({ title }) => title.toLowerCase());
    byId("unmeasured").textContent = `Not measured: ${names.join(", ")}.`;
    byId("unmeasured").hidden = names.length === 0 || rows.length === 0;
  }

  #setRails(rails) {
    this.rails = rails;
    this.power.setSeries(JSON.parse(rails).map((rail, place) => [
      rail, `--series-${(place + 3) % 6 + 1}`, (row) => row.watts?.[rail],
    ]));
  }
}
