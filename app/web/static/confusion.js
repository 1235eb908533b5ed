// The confusion matrix of results whose true label is known: one row per true label, one column per
// label found; cells are shaded by their share of the row.

import { byId, part, resize } from "./dom.js";
import { number } from "./format.js";

const LEVELS = 5;
const MOST_NAMED = 3; // pairs in the line below the matrix

export function showConfusion(report) {
  const card = byId("matrix").closest("section");
  card.hidden = report === null;
  if (report === null) return;
  const { labels, counts, classes } = report;
  byId("confusion-note").textContent = labels.length < classes
    ? `the ${labels.length} most confused of ${number(classes)} classes; rows are true labels`
    : "rows are true labels, columns the labels found";
  byId("confused").textContent = mostConfused(labels, counts);
  columns(labels);
  const body = byId("matrix").tBodies[0];
  resize(body, labels.length, () => part("tr"));
  counts.forEach((row, place) => fill(body.rows[place], labels, row, place));
}

function columns(labels) {
  const head = byId("matrix").tHead;
  if (!head.rows.length) head.append(part("tr"));
  const [row] = head.rows;
  resize(row, labels.length + 1, () => row.children.length ? heading("col") : part("td"));
  labels.forEach((label, place) => name(row.children[place + 1], label));
}

function heading(scope) {
  const cell = part("th");
  cell.scope = scope;
  cell.append(part("span"));
  return cell;
}

function name(cell, label) {
  cell.firstChild.textContent = label;
  cell.title = label;
}

function fill(row, labels, counts, place) {
  resize(row, labels.length + 1, () => row.children.length ? part("td") : heading("row"));
  name(row.children[0], labels[place]);
  const total = counts.reduce((sum, count) => sum + count, 0);
  counts.forEach((count, column) => {
    const cell = row.children[column + 1];
    cell.textContent = count ? number(count) : "";
    cell.className = column === place ? "right" : "wrong";
    cell.dataset.level = count ? Math.max(1, Math.round(LEVELS * count / total)) : 0;
  });
}

function mostConfused(labels, counts) {
  const pairs = counts.flatMap((row, place) => row
    .map((count, column) => [count, labels[place], labels[column]])
    .filter(([count, truth, found]) => count && truth !== found));
  if (!pairs.length) return "Nothing has been confused so far.";
  pairs.sort(([one], [other]) => other - one);
  const named = pairs.slice(0, MOST_NAMED).map(([count, truth, found]) => (
    `${truth} found as ${found} (${number(count)})`));
  return `Most often: ${named.join(", ")}.`;
}
