// The newest result: label, confidence, best classes, true label. A label below the viewer's
// threshold is shown as uncertain.

import { byId, part, resize } from "./dom.js";
import { confidence } from "./format.js";

const ANNOUNCE_MS = 4000; // shortest time between two labels for a screen reader

export class Verdict {
  #announced = { text: "", at: -ANNOUNCE_MS };

  // changed(): called when the viewer moves the threshold
  constructor(changed) {
    this.result = null; // the result shown
    this.slider = byId("threshold");
    this.slider.addEventListener("input", () => {
      this.#showThreshold();
      if (this.result) this.show(this.result);
      changed();
    });
    this.#showThreshold(); // a browser keeps the slider's position on a reload
  }

  // A model without softmax or sigmoid gives scores of any size. Negative ones and those above 1 are
  // not probabilities, so the threshold does not apply to them.
  isUncertain(value) {
    const threshold = Number(this.slider.value) / 100;
    return value !== null && value >= 0 && value < threshold;
  }

  #showThreshold() {
    const { value } = this.slider;
    const text = value === "0" ? "off" : `${value}%`;
    byId("threshold-value").textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
  }

  show(result) {
    this.result = result;
    const { name, top, true_label: truth, error } = result;
    const [label, value] = top[0] ?? [error ? `failed: ${error}` : "–", null];
    const uncertain = this.isUncertain(value);
    byId("label").textContent = label;
    byId("label").title = label;
    byId("label").classList.toggle("failed", Boolean(error));
    byId("label").classList.toggle("uncertain", uncertain);
    byId("uncertain").hidden = !uncertain;
    byId("confidence").textContent = value === null ? "" : confidence(value);
    byId("frame-name").textContent = name;
    byId("frame-name").title = name;
    showTruth(truth, label);
    showClasses(top);
    this.#announce(uncertain ? `uncertain: ${label}` : label);
  }

  #announce(text) {
    const now = performance.now();
    if (text === this.#announced.text || now - this.#announced.at < ANNOUNCE_MS) return;
    this.#announced = { text, at: now };
    byId("announcement").textContent = text;
  }
}

function showTruth(truth, label) {
  const right = truth === label;
  byId("truth").textContent = truth === null ? "" : right ? "✓ correct" : `✗ is ${truth}`;
  byId("truth").className = right ? "right" : "wrong";
}

function showClasses(top) {
  const list = byId("classes");
  resize(list, top.length, classItem);
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
  const item = part("li");
  item.append(part("span", "name"), part("span", "track"), part("span", "value"));
  item.children[1].append(part("span", "bar"));
  return item;
}
