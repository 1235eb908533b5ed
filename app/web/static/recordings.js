// Recordings: the button, the running time, and the table with the downloads.

import { byId } from "./dom.js";
import { clock, duration, number, threeFigures } from "./format.js";

export class Recordings {
  constructor() {
    this.running = null;
    this.connected = false;
    this.asking = false; // in place of `disabled`, which would lose the keyboard's focus
    this.button = byId("record");
    this.button.addEventListener("click", () => this.#toggle());
    setInterval(() => document.hidden || this.#showTime(), 500);
  }

  async refresh() {
    const answer = await fetch("/recordings").catch(() => null);
    if (answer?.ok) this.show(await answer.json());
  }

  show(list) {
    const running = list.find((recording) => recording.running) ?? null;
    this.running = running && { ...running, began: performance.now() - 1000 * running.seconds };
    this.button.textContent = running ? "Stop recording" : "Start recording";
    this.button.classList.toggle("stop", Boolean(running));
    byId("no-recordings").hidden = list.length > 0;
    byId("recordings").hidden = list.length === 0;
    byId("recordings").tBodies[0].replaceChildren(...list.toReversed().map(tableRow));
    this.#showTime();
  }

  // Without a server nothing can be started, stopped or downloaded.
  setConnected(connected) {
    this.connected = connected;
    this.button.disabled = !connected;
    this.#showTime();
  }

  #showTime() {
    const seconds = this.running && (performance.now() - this.running.began) / 1000;
    byId("running-time").textContent = this.running && this.connected ? duration(seconds) : "";
  }

  async #toggle() {
    if (this.asking) return;
    this.asking = true;
    const path = this.running ? `/recordings/${this.running.id}/stop` : "/recordings";
    const answer = await fetch(path, { method: "POST", headers: { "X-Tutelage": "1" } })
      .catch(() => null);
    const failed = answer === null || !answer.ok;
    byId("recording-error").hidden = !failed;
    if (failed) {
      byId("recording-error").textContent = answer ? await answer.text() : "the server does not answer";
    }
    await this.refresh();
    this.asking = false;
  }
}

function tableRow(recording) {
  const row = document.createElement("tr");
  const cells = [
    ["#", String(recording.id)],
    ["Started", clock(new Date(recording.started))],
    ["Duration", recording.running ? "running" : duration(recording.seconds)],
    ["Frames", frames(recording)],
    ["fps", recording.running ? "" : number(recording.fps, 1)],
    ["p50 ms", recording.running ? "" : threeFigures(recording.p50_ms)],
    ["p99 ms", recording.running ? "" : threeFigures(recording.p99_ms)],
    ["Power", recording.running ? "" : power(recording.watts)],
  ];
  for (const [name, text] of cells) {
    const cell = row.insertCell();
    cell.dataset.name = name;
    cell.textContent = text;
  }
  downloads(row.insertCell(), recording);
  return row;
}

function frames(recording) {
  if (recording.running) return "";
  const failed = recording.failed ? `, ${number(recording.failed)} failed` : "";
  return number(recording.frames) + failed;
}

function power(watts) {
  if (watts === null) return "not measured";
  return Object.entries(watts).map(([rail, w]) => `${rail} ${threeFigures(w)} W`).join(", ");
}

function downloads(cell, recording) {
  cell.dataset.name = "Download";
  if (recording.running) return;
  const links = document.createElement("span");
  for (const kind of ["json", "csv"]) {
    const link = document.createElement("a");
    link.href = `/recordings/${recording.id}.${kind}`;
    link.download = "";
    link.textContent = kind.toUpperCase();
    link.setAttribute("aria-label", `Download recording ${recording.id} as ${kind.toUpperCase()}`);
    links.append(link, " ");
  }
  cell.append(links);
}
