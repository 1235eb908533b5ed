// The figures of the run: the six most important ones, and the others folded.
// A figure: [name, [value, unit] or null, note, whether it is an alarm, text in place of null]

import { byId, part, resize } from "./dom.js";
import { bytes, number, threeFigures } from "./format.js";

export function showFigures(row) {
  figures(byId("tiles"), headlines(row));
  figures(byId("more-tiles"), others(row));
}

function headlines(row) {
  return [
    ["Speed", measured(row.fps, "frames/s"), "of the last second"],
    ["Latency", measured(row.p50_ms, "ms"),
      row.p99_ms === null ? "median" : `median; p99 ${threeFigures(row.p99_ms)} ms`, false, "no frame"],
    ["Accuracy", row.labelled ? [number(100 * row.correct / row.labelled, 1), "%"] : null,
      row.labelled ? `${number(row.correct)} of ${number(row.labelled)} correct` : "no true labels",
      false, "not known"],
    ["Frames", [number(row.frames), ""], progress(row)],
    ["DPU", row.dpu_utilisation === null ? null : measured(100 * row.dpu_utilisation, "%"),
      "of all its cores"],
    ["Power", row.total_watts === null ? null : measured(row.total_watts, "W"),
      row.total_watts === null && row.watts ? "per rail below" : "", false,
      row.watts ? "no total" : "not measured"],
  ];
}

function others(row) {
  const { queues } = row;
  const known = Object.values(queues).some((depth) => depth !== null);
  const depth = (name) => queues[name] === null ? "–" : number(queues[name]);
  return [
    ["Failed", [number(row.failed), ""], "", row.failed > 0],
    ["Dropped", row.dropped === null ? null : [number(row.dropped), ""]],
    ["Queues", known ? [["waiting", "in_flight", "done"].map(depth).join(" · "), ""] : null,
      known ? "waiting · in flight · done" : ""],
    ["CPU", measured(row.cpu_percent, "%"), "of one core"],
    ["Memory", row.memory_bytes === null ? null : bytes(row.memory_bytes)],
    ["Temperature", row.temperature_c === null ? null : [number(row.temperature_c, 1), "°C"]],
  ];
}

function measured(value, unit) {
  return value === null ? null : [threeFigures(value), unit];
}

function progress({ frames, length, failed, dropped }) {
  const lost = [];
  if (failed) lost.push(`${number(failed)} failed`);
  if (dropped) lost.push(`${number(dropped)} dropped`);
  if (lost.length) return lost.join(", ");
  return length ? `of ${number(length)}, ${number(100 * Math.min(1, frames / length))}%` : "none lost";
}

function figures(grid, list) {
  resize(grid, list.length, figure);
  list.forEach(([name, value, note = "", alarm = false, without = "not measured"], place) => {
    const [title, shown, below] = grid.children[place].children;
    title.textContent = name;
    shown.className = `value${value === null ? " none" : ""}${alarm ? " alarm" : ""}`;
    shown.firstChild.textContent = value === null ? without : value[0];
    shown.lastChild.textContent = value === null ? "" : value[1];
    below.textContent = note;
  });
}

function figure() {
  const box = part("div");
  box.append(part("dt"), part("dd", "value"), part("dd", "note"));
  box.children[1].append(part("span"), part("span", "unit"));
  return box;
}
