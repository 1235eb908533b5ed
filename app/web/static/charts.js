// The charts of the last five minutes: latency, frames per second, power.

import { clock, threeFigures } from "./format.js";

const SPAN_SECONDS = 300;
const SHORTEST_SECONDS = 60;
const HEIGHT = 136;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// One chart in a card: series are [name, colour, row => value].
class Chart {
  constructor(card, title, unit) {
    this.card = card;
    this.title = title;
    this.unit = unit;
    this.rows = [];
    this.series = [];
    this.plot = null;
    const resized = new ResizeObserver(() => this.#resize());
    resized.observe(card);
    this.#head();
  }

  #head() {
    const heading = element("div", "heading");
    const title = element("h3", "", `${this.title} `);
    title.append(element("span", "unit", this.unit));
    this.keys = element("div", "heading keys");
    this.body = element("div", "plot");
    heading.append(title, this.keys);
    this.card.replaceChildren(heading, this.body);
  }

  // Show `text` in place of the chart.
  none(text) {
    this.#drop();
    this.series = [];
    this.keys.replaceChildren();
    this.body.replaceChildren(element("p", "none", text));
  }

  setSeries(series) {
    this.series = series;
    this.values = series.map(([name, tint]) => {
      const key = element("span", "key");
      const line = element("i");
      line.style.background = colour(tint);
      const value = element("b", "", "–");
      key.append(line, element("span", "", name), value);
      return [key, value];
    });
    this.keys.replaceChildren(...this.values.map(([key]) => key));
    this.#drop();
    this.draw(this.rows);
  }

  draw(rows) {
    this.rows = rows;
    if (!this.series.length || !this.card.clientWidth) return;
    const data = [rows.map((row) => row.time)];
    for (const [, , value] of this.series) data.push(rows.map((row) => value(row) ?? null));
    this.data = data;
    if (this.plot) {
      this.plot.setData(data);
    } else {
      this.body.replaceChildren();
      this.plot = new uPlot(this.#options(), data, this.body);
      this.plot.root.setAttribute("role", "img");
    }
    this.#showValues();
  }

  #drop() {
    this.plot?.destroy();
    this.plot = null;
  }

  #resize() {
    if (this.plot) this.plot.setSize({ width: this.#width(), height: HEIGHT });
    else this.draw(this.rows);
  }

  #width() {
    return Math.max(200, this.body.clientWidth);
  }

  // The values under the cursor, else the newest.
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
        x: { time: true, range: (_plot, first, last) => this.#span(first, last) },
        y: { range: (_plot, _least, most) => [0, most > 0 ? 1.08 * most : 1] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 90, size: 26,
          values: (_plot, times) => times.map((time) => clock(1000 * time)) },
        { ...axis, grid, size: 46, space: 24,
          values: (_plot, values) => values.map((value) => String(Number(value.toPrecision(6)))) },
      ],
      series: [{}, ...this.series.map(([label, tint]) => ({
        label, stroke: colour(tint), width: 1.75, points: { show: false }, spanGaps: false,
      }))],
    };
  }

  #span(first, last) {
    if (last === null || last === undefined) return [0, SHORTEST_SECONDS];
    return [Math.max(Math.min(first, last - SHORTEST_SECONDS), last - SPAN_SECONDS), last];
  }
}

function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}

export class Charts {
  constructor() {
    this.rows = [];
    this.rails = "";
    this.latency = new Chart(document.getElementById("latency"), "Latency", "ms, read to result");
    this.fps = new Chart(document.getElementById("fps"), "Throughput", "frames/s");
    this.power = new Chart(document.getElementById("power"), "Power", "W per rail");
    this.#colour();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#colour());
  }

  #colour() {
    this.latency.setSeries([
      ["p50", "--series-1", (row) => row.p50_ms],
      ["p99", "--series-2", (row) => row.p99_ms],
    ]);
    this.fps.setSeries([["fps", "--series-3", (row) => row.fps]]);
    this.#setRails(this.rails);
  }

  #setRails(rails) {
    this.rails = rails;
    if (!rails) {
      this.power.none("power: not measured");
      return;
    }
    this.power.setSeries(JSON.parse(rails).map((rail, place) => [
      rail, `--series-${(place + 3) % 6 + 1}`, (row) => row.watts?.[rail],
    ]));
  }

  // Show these rows and no others.
  replace(rows) {
    this.rows = rows;
    this.#draw();
  }

  add(row) {
    if (row.number <= (this.rows.at(-1)?.number ?? 0)) return;
    this.rows.push(row);
    if (this.rows.length > SPAN_SECONDS) this.rows.shift();
    this.#draw();
  }

  #draw() {
    const seen = new Set(this.rows.flatMap((row) => Object.keys(row.watts ?? {})));
    const rails = seen.size ? JSON.stringify([...seen]) : "";
    this.power.rows = this.rows;
    if (rails !== this.rails) this.#setRails(rails);
    for (const chart of [this.latency, this.fps, this.power]) chart.draw(this.rows);
  }
}
