// The live page: connects, shows what comes, connects again when the server was away.
// Labels, names and facts come from strangers: they are only ever set as text.

import { Charts } from "./charts.js";
import { bytes, confidence, duration, number, threeFigures } from "./format.js";
import { Recordings } from "./recordings.js";
import { Results } from "./results.js";

const RETRY_MS = [500, 1000, 2000, 4000]; // the last one repeats
const SILENCE_MS = 6000; // a row comes every second: after that the connection is dead
const ANNOUNCE_MS = 4000; // a screen reader is told of a new label no more often than that

const byId = (id) => document.getElementById(id);
const charts = new Charts();
const recordings = new Recordings();
const results = new Results(showResult, showWithoutPictures);

let events = null;
let attempts = 0;
let retryTimer = 0;
let lastSign = 0; // performance.now() of the last event
let withPictures = true; // results come with their pictures, not with the events
let newest = null; // the result that came last with the events

// Connection

async function connect() {
  clearTimeout(retryTimer);
  if (events || document.hidden) return;
  const answer = await fetch("/state.json").catch(() => null);
  if (answer?.status === 401) {
    lost("This run asks for another token: use the URL that classify.py printed, or its token file.");
  } else if (!answer?.ok) {
    lost("Connection lost. Trying again …");
  } else {
    showState(await answer.json());
    listen();
  }
}

function listen() {
  if (events || document.hidden) return;
  events = new EventSource("/events");
  const on = (name, act) => events.addEventListener(name, (event) => {
    lastSign = performance.now();
    act(event.data && JSON.parse(event.data));
  });
  on("open", live);
  on("label", (result) => {
    newest = result;
    if (!withPictures) showLabel(newest);
  });
  on("row", showRow);
  on("recordings", () => recordings.refresh());
  on("over", over);
  on("end", ended);
  events.onerror = () => lost("Connection lost. Trying again …");
  lastSign = performance.now();
}

function live() {
  attempts = 0;
  byId("banner").hidden = true;
  setStatus("live", "live");
  recordings.setConnected(true);
  results.start();
}

function disconnect() {
  clearTimeout(retryTimer);
  results.stop();
  events?.close();
  events = null;
}

function lost(text) {
  disconnect();
  showBanner(text);
  setStatus("lost", "not connected");
  recordings.setConnected(false);
  retry();
}

function endText({ frames, failed, error }) {
  const failures = failed ? `, ${number(failed)} of them failed` : "";
  const count = `${number(frames)} ${frames === 1 ? "frame" : "frames"}${failures}`;
  return `The run has ended after ${count}${error ? `, by an error: ${error}` : "."}`;
}

// No more results come, but the server stays for the recordings.
function over(counts) {
  showBanner(`${endText(counts)} Recordings can be downloaded until classify.py is stopped.`);
  setStatus("over", "ended");
}

function ended(counts) {
  disconnect();
  showBanner(endText(counts));
  setStatus("ended", "ended");
  recordings.setConnected(false);
  retry(); // the next run on this address is shown without a reload
}

function retry() {
  const pause = RETRY_MS[Math.min(attempts, RETRY_MS.length - 1)];
  attempts += 1;
  retryTimer = setTimeout(reconnect, pause);
}

// As connect, but the banner of a run that has ended stays until there is another one.
async function reconnect() {
  if (byId("state").dataset.state !== "ended") return connect();
  const answer = await fetch("/state.json").catch(() => null);
  return answer ? connect() : retry();
}

function showBanner(text) {
  const banner = byId("banner");
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = false;
}

function setStatus(state, text) {
  byId("state").dataset.state = state;
  byId("state").textContent = text;
}

// Picture and label, drawn together

function showResult(result, picture) {
  showPicture(picture, "this frame has no picture");
  showLabel(result);
  withPictures = true;
}

function showPicture(picture, without) {
  const video = byId("video");
  video.hidden = picture === null;
  byId("no-image").hidden = picture !== null;
  byId("no-image").textContent = without;
  if (picture === null) return;
  const { width, height } = picture;
  if (video.width !== width || video.height !== height) Object.assign(video, { width, height });
  video.getContext("2d").drawImage(picture, 0, 0);
}

// Too many viewers: the labels come with the events then.
function showWithoutPictures(reason) {
  withPictures = false;
  showPicture(null, reason);
  if (newest) showLabel(newest);
}

// What comes

function showState(state) {
  showFacts(state.facts);
  charts.replace(state.history);
  recordings.show(state.recordings);
  if (state.row) showTiles(state.row);
}

function showRow(row) {
  charts.add(row);
  showTiles(row);
  setStatus("live", `live · ${duration(row.uptime_s)}`);
}

function showLabel({ name, top, true_label: truth, error }) {
  const [label, value] = top[0] ?? [error ? `failed: ${error}` : "–", null];
  byId("label").textContent = label;
  byId("label").title = label;
  byId("label").classList.toggle("failed", Boolean(error));
  byId("confidence").textContent = value === null ? "" : confidence(value);
  byId("frame-name").textContent = name;
  byId("frame-name").title = name;
  showTruth(truth, label);
  showClasses(top);
  announce(label);
}

function showTruth(truth, label) {
  const right = truth === label;
  byId("truth").textContent = truth === null ? "" : right ? "✓ right" : `✗ is ${truth}`;
  byId("truth").className = right ? "right" : "wrong";
}

function showClasses(top) {
  const list = byId("classes");
  while (list.children.length > top.length) list.lastElementChild.remove();
  while (list.children.length < top.length) list.append(classItem());
  const largest = Math.max(1, ...top.map(([, value]) => value ?? 0));
  top.forEach(([label, value], place) => {
    const [name, track, shown] = list.children[place].children;
    name.textContent = label;
    name.title = label;
    track.firstChild.style.width = `${Math.max(0, 100 * (value ?? 0) / largest)}%`;
    shown.textContent = confidence(value);
  });
}

function classItem() {
  const item = document.createElement("li");
  item.append(part("span", "name"), part("span", "track"), part("span", "value"));
  item.children[1].append(part("div", "bar"));
  return item;
}

let announced = { text: "", at: -ANNOUNCE_MS };

function announce(text) {
  const now = performance.now();
  if (text === announced.text || now - announced.at < ANNOUNCE_MS) return;
  announced = { text, at: now };
  byId("announcement").textContent = text;
}

// Tiles: [name, [value, unit] or null where it was not measured, note, alarm]

function showTiles(row) {
  const { queues } = row;
  const known = Object.values(queues).some((depth) => depth !== null);
  const depth = (name) => queues[name] === null ? "–" : number(queues[name]);
  const percent = (value) => value === null ? null : [threeFigures(value), "%"];
  const count = (value) => value === null ? null : [number(value), ""];
  tiles([
    ["Frames", count(row.frames), progress(row)],
    ["Failed", count(row.failed), "", row.failed > 0],
    ["Dropped", count(row.dropped)],
    ["Queues", known ? [["waiting", "in_flight", "done"].map(depth).join(" · "), ""] : null,
      known ? "waiting · in flight · done" : ""],
    ["DPU utilisation", percent(row.dpu_utilisation === null ? null : 100 * row.dpu_utilisation),
      "of all its cores"],
    ["CPU", percent(row.cpu_percent), "of one core"],
    ["Memory", row.memory_bytes === null ? null : bytes(row.memory_bytes)],
    ["Temperature", row.temperature_c === null ? null : [number(row.temperature_c, 1), "°C"]],
  ]);
}

function progress({ frames, length }) {
  if (!length) return "";
  return `of ${number(length)}, ${number(100 * Math.min(1, frames / length))}%`;
}

function tiles(list) {
  const grid = byId("tiles");
  while (grid.children.length < list.length) grid.append(tile());
  list.forEach(([name, value, note = "", alarm = false], place) => {
    const [title, shown, below] = grid.children[place].children;
    title.textContent = name;
    shown.className = `value${value === null ? " none" : ""}${alarm ? " alarm" : ""}`;
    shown.firstChild.textContent = value === null ? "not measured" : value[0];
    shown.lastChild.textContent = value === null ? "" : value[1];
    below.textContent = note;
  });
}

function tile() {
  const box = part("div", "");
  box.append(part("dt", ""), part("dd", "value"), part("dd", "note"));
  box.children[1].append(part("span", ""), part("span", "unit"));
  return box;
}

// Facts: nested keys become one line each

function showFacts(facts) {
  const lines = [...flat(facts, [])].filter(([, text]) => text !== "");
  byId("facts").replaceChildren(...lines.flatMap(([name, text]) => [
    part("dt", "", name), part("dd", "", text),
  ]));
  const model = facts.model?.name ?? "";
  byId("model").textContent = model;
  byId("provider").textContent = typeof facts.provider === "string" ? facts.provider : "";
  document.title = model ? `${model} · Tutelage` : "Tutelage";
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

function part(name, kind, text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}

// A page that nobody sees takes nothing; when it is seen again, it fetches what it missed.

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    reconnect();
  } else if (events) {
    disconnect();
  } else {
    clearTimeout(retryTimer);
  }
});

setInterval(() => {
  if (events && performance.now() - lastSign > SILENCE_MS) {
    lost("No answer any more. Trying again …");
  }
}, 1000);

connect();
