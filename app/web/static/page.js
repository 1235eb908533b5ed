// The live page: connects to the server, shows its events, and reconnects after a loss.

import { Charts, SPAN_SECONDS } from "./charts.js";
import { showConfusion } from "./confusion.js";
import { byId } from "./dom.js";
import { showFacts } from "./facts.js";
import { showFigures } from "./figures.js";
import { duration, number } from "./format.js";
import { Picture } from "./picture.js";
import { Recordings } from "./recordings.js";
import { Results } from "./results.js";
import { Timeline } from "./timeline.js";
import { Verdict } from "./verdict.js";

const RETRY_MS = [500, 1000, 2000, 4000]; // the last one repeats
const SILENCE_MS = 6000; // rows come every second; after this time without one the connection is lost

const verdict = new Verdict(() => timeline.draw(history));
const picture = new Picture(() => verdict.result);
const charts = new Charts();
const timeline = new Timeline((confidence) => verdict.isUncertain(confidence));
const recordings = new Recordings();
const results = new Results(showResult, showWithoutPictures);

let events = null;
let attempts = 0;
let retryTimer = 0;
let lastSign = 0; // performance.now() of the last event
let withPictures = true; // whether results come with their pictures instead of as events
let newest = null; // the last result that came as an event
let paused = false; // whether the viewer has paused the page, which then shows nothing new
let history = []; // rows of the last five minutes

// Connection

async function connect() {
  clearTimeout(retryTimer);
  if (events || document.hidden) return;
  const answer = await fetch("/state.json").catch(() => null);
  if (answer?.status === 401) {
    lost("This run needs another token: use the URL that classify.py printed, or its token file.");
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
  const show = (act) => (data) => paused || act(data);
  on("open", live);
  on("label", show((result) => {
    newest = result;
    if (!withPictures) verdict.show(newest);
  }));
  on("row", show(showRow));
  on("confusion", show(showConfusion));
  on("recordings", () => recordings.refresh());
  on("over", over);
  on("end", ended);
  events.onerror = () => lost("Connection lost. Trying again …");
  lastSign = performance.now();
}

function live() {
  attempts = 0;
  byId("banner").hidden = true;
  recordings.setConnected(true);
  if (paused) return setStatus("paused", "paused");
  setStatus("live", "live");
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
  return `The run has ended after ${count}${error ? `, with an error: ${error}` : "."}`;
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

// Like connect, but the banner of an ended run stays until another run answers.
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

// Events

// Show picture and label together.
function showResult(result, image) {
  picture.show(image, "this frame has no picture");
  verdict.show(result);
  withPictures = true;
}

// With too many viewers, the labels come as events.
function showWithoutPictures(reason) {
  withPictures = false;
  picture.show(null, reason);
  if (newest) verdict.show(newest);
}

function showState(state) {
  recordings.show(state.recordings);
  if (paused) return;
  showFacts(state.facts);
  showConfusion(state.confusion);
  showHistory(state.history);
}

function showRow(row) {
  if (row.number <= (history.at(-1)?.number ?? 0)) return;
  showHistory([...history, row].slice(-SPAN_SECONDS));
  setStatus("live", `live · ${duration(row.uptime_s)}`);
}

function showHistory(rows) {
  history = rows;
  charts.draw(rows);
  timeline.draw(rows);
  if (rows.length) showFigures(rows.at(-1));
}

// A paused page keeps what it shows; the run and its recordings continue.

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").classList.toggle("paused", paused);
  byId("pause").querySelector("span").textContent = paused ? "Resume" : "Pause";
  if (paused) results.stop();
  if (paused && byId("state").dataset.state === "live") setStatus("paused", "paused");
  if (paused || !events) return;
  disconnect();
  connect();
});

// A hidden page disconnects; when it is visible again, it fetches what it missed.

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
    lost("The server does not answer. Trying again …");
  }
}, 1000);

connect();
