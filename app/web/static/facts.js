// Facts about model and board: the six main ones, and a folded list of all, one line per key.

import { byId, part } from "./dom.js";

export function showFacts(facts) {
  const all = [...flat(facts, [])].filter(([, text]) => text !== "");
  list(byId("facts"), headFacts(facts).filter(([, text]) => text !== ""));
  const folded = byId("all-facts");
  folded.hidden = all.length === 0;
  folded.querySelector("summary").textContent = `All ${all.length} facts`;
  list(folded.querySelector("dl"), all);
  const model = text(facts.model?.name);
  byId("model").textContent = model;
  byId("provider").textContent = text(facts.provider);
  document.title = model ? `${model} · Tutelage` : "Tutelage";
}

function headFacts({ provider, model = {}, source, board = {} }) {
  return [
    ["Model", text(model?.name)],
    ["Input", input(model ?? {})],
    ["Compiled for", text(model?.target)],
    ["Runs on", text(provider)],
    ["Source", text(source)],
    ["Machine", [board?.board ?? board?.machine, board?.image].map(text).filter(Boolean).join(", ")],
  ];
}

// The input is NHWC.
function input({ input: dims, colour, classes }) {
  const size = Array.isArray(dims) && dims.length === 4 ? `${dims[2]} × ${dims[1]}` : "";
  const count = Number.isInteger(classes) ? `${classes} classes` : "";
  return [[size, text(colour)].filter(Boolean).join(" "), count].filter(Boolean).join(", ");
}

function text(value) {
  return typeof value === "string" ? value : "";
}

function list(place, lines) {
  place.replaceChildren(...lines.flatMap(([name, value]) => [
    part("dt", "", name), part("dd", "", value),
  ]));
}

function* flat(value, path) {
  if (value === null || value === undefined) return;
  if (Array.isArray(value)) {
    yield [title(path), value.map((each) => plain(each)).join(", ")];
  } else if (typeof value === "object") {
    for (const [key, inner] of Object.entries(value)) yield* flat(inner, [...path, key]);
  } else {
    yield [title(path), plain(value)];
  }
}

function title(path) {
  return path.map((key) => key.replaceAll("_", " ")).join(" · ");
}

function plain(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
