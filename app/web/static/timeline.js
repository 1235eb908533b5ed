// The labels of the last five minutes: one lane per label, with a mark for each second in which it
// was the most frequent one. Marks of uncertain seconds are faint.

import { span } from "./charts.js";
import { byId, drawing, part, resize } from "./dom.js";
import { clock } from "./format.js";

const MOST_LANES = 8; // with more labels, the last lane has all the others
const LANE_HEIGHT = 10; // in the lane's own units; a second is one unit wide

export class Timeline {
  // isUncertain(confidence)
  constructor(isUncertain) {
    this.isUncertain = isUncertain;
  }

  draw(rows) {
    const seconds = rows.filter((row) => row.label !== null);
    const card = byId("timeline").closest("section");
    card.hidden = seconds.length === 0;
    if (card.hidden) return;
    const [first, last] = span(rows[0].time, rows.at(-1).time);
    const lanes = byLane(seconds);
    resize(byId("timeline"), lanes.length, lane);
    lanes.forEach(([label, marks], place) => this.#fill(place, label, marks, first, last));
    byId("timeline-first").textContent = clock(1000 * first);
    byId("timeline-last").textContent = clock(1000 * last);
  }

  #fill(place, label, marks, first, last) {
    const [name, strip, total] = byId("timeline").children[place].children;
    name.textContent = label;
    name.title = label;
    strip.setAttribute("viewBox", `0 0 ${last - first} ${LANE_HEIGHT}`);
    const [certain, faint] = strip.children;
    const uncertain = (row) => this.isUncertain(row.confidence);
    certain.setAttribute("d", path(marks.filter((row) => !uncertain(row)), first));
    faint.setAttribute("d", path(marks.filter(uncertain), first));
    total.textContent = `${marks.length} s`;
  }
}

// Return [label, rows] sorted by label; the rarest ones are merged into the last.
function byLane(seconds) {
  const lanes = new Map();
  for (const row of seconds) {
    if (!lanes.has(row.label)) lanes.set(row.label, []);
    lanes.get(row.label).push(row);
  }
  const byName = ([one], [other]) => one.localeCompare(other, "en", { numeric: true });
  const sorted = [...lanes].sort((one, other) => other[1].length - one[1].length || byName(one, other));
  if (sorted.length <= MOST_LANES) return sorted.sort(byName);
  const kept = sorted.slice(0, MOST_LANES - 1).sort(byName);
  const others = sorted.slice(MOST_LANES - 1);
  return [...kept, [`${others.length} others`, others.flatMap(([, rows]) => rows)]];
}

// A rectangle per second; a row ends at its time.
function path(rows, first) {
  return rows.map((row) => `M${(row.time - first - 1).toFixed(2)} 0h1v${LANE_HEIGHT}h-1z`).join("");
}

function lane() {
  const item = part("li");
  const strip = drawing("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  strip.append(drawing("path"), drawing("path", { class: "faint" }));
  item.append(part("span", "name"), strip, part("span", "value"));
  return item;
}
