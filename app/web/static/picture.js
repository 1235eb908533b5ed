// The picture: its canvas, the full screen, and snapshots with the label.

import { byId, part } from "./dom.js";
import { confidence } from "./format.js";

const NARROWEST = 480; // width of a snapshot, pixels: narrower pictures are enlarged by a whole factor
const CAPTION = 64; // height of the caption below the picture, pixels
const LONGEST_NAME = 60; // of a label or a frame's name in a file's name, characters

export class Picture {
  // current(): the result that belongs to the picture, null before the first one
  constructor(current) {
    this.current = current;
    this.canvas = byId("video");
    byId("snapshot").addEventListener("click", () => this.#save());
    const button = byId("full-screen");
    button.hidden = !document.fullscreenEnabled;
    button.addEventListener("click", () => {
      byId("stage").requestFullscreen().catch(() => { button.hidden = true; });
    });
  }

  // Show a picture, or if it is null, the reason.
  show(picture, without) {
    this.canvas.hidden = picture === null;
    byId("no-image").hidden = picture !== null;
    byId("no-image").textContent = without;
    byId("snapshot").disabled = picture === null;
    if (picture === null) return;
    const { width, height } = picture;
    const { canvas } = this;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(picture, 0, 0);
  }

  #save() {
    const result = this.current();
    if (result === null || this.canvas.hidden) return;
    const name = fileName(result, new Date());
    captioned(this.canvas, result).toBlob((blob) => {
      const link = part("a");
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.click();
      URL.revokeObjectURL(link.href);
    }, "image/png");
  }
}

function captioned(picture, { name, top }) {
  const factor = Math.max(1, Math.ceil(NARROWEST / picture.width));
  const [width, height] = [picture.width * factor, picture.height * factor];
  const canvas = Object.assign(part("canvas"), { width, height: height + CAPTION });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#05080b";
  context.fillRect(0, 0, width, height + CAPTION);
  context.drawImage(picture, 0, 0, width, height);
  const [label, value] = top[0] ?? ["–", null];
  write(context, `${label}  ${value === null ? "" : confidence(value)}`, height + 28, "#ffffff", "600 22px");
  write(context, name, height + 52, "#b9c4cf", "14px");
  return canvas;
}

function write(context, text, baseline, colour, font) {
  context.font = `${font} system-ui, sans-serif`;
  context.fillStyle = colour;
  context.fillText(text, 14, baseline, context.canvas.width - 28);
}

function fileName({ name, top }, now) {
  const two = (n) => String(n).padStart(2, "0");
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  const time = `${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
  const words = [top[0]?.[0] ?? "", name].map(plain).filter((word) => word !== "");
  return ["tutelage", `${day}-${time}`, ...words].join("-") + ".png";
}

function plain(text) {
  const letters = text.replace(/[^\p{L}\p{N}]+/gu, "-");
  return [...letters].slice(0, LONGEST_NAME).join("").replace(/^-+|-+$/g, "");
}
