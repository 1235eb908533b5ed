// Facts about model and board: the six main ones, and all of them folded, in a list per table.

import { byId, part } from "./dom.js";

export function showFacts(facts) {
  list(byId("facts"), headFacts(facts).filter(([, text]) => text !== ""));
  const all = [...flat(facts, [])].filter(([, , text]) => text !== "");
  const folded = byId("all-facts");
  folded.hidden = all.length === 0;
  folded.querySelector("summary").textContent = `All ${all.length} facts`;
  folded.querySelector("div").replaceChildren(...byTable(all));
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

// Return a heading and a list for each table; the facts outside of tables come first.
function byTable(all) {
  const tables = new Map([["run", []]]);
  for (const [table, name, value] of all) {
    if (!tables.has(table)) tables.set(table, []);
    tables.get(table).push([name, value]);
  }
  return [...tables].filter(([, lines]) => lines.length).flatMap(([table, lines]) => {
    const place = part("dl");
    list(place, lines);
    return [part("h3", "", table), place];
  });
}

// Yield [table, name, value] of each fact.
function* flat(value, path) {
  if (value === null || value === undefined) return;
  if (typeof value === "object" && !Array.isArray(value)) {
    for (const [key, inner] of Object.entries(value)) {
      yield* flat(inner, [...path, key.replaceAll("_", " ")]);
    }
    return;
  }
  const shown = Array.isArray(value) ? value.map(plain).join(", ") : plain(value);
  yield [path.slice(0, -1).join(" · ") || "run", path.at(-1), shown];
}

function plain(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
