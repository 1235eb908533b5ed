// Formats of numbers and times.

const formats = new Map();

export function number(value, digits = 0) {
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat("en-GB", {
      minimumFractionDigits: digits, maximumFractionDigits: digits,
    }));
  }
  return formats.get(digits).format(value);
}

// About three significant figures: 0.303, 4.93, 29.2, 949.
export function threeFigures(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return number(value, size >= 99.95 || size === 0 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3);
}

export function confidence(value) {
  if (value === null) return "–";
  // Models without softmax or sigmoid give scores of any size.
  return value >= 0 && value <= 1 ? `${number(100 * value, 1)}%` : threeFigures(value);
}

export function duration(seconds) {
  const whole = Math.floor(seconds);
  const two = (n) => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export function clock(date) {
  return clockFormat.format(date);
}

// [number, unit]
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return [step ? threeFigures(value / 2 ** (10 * step)) : number(value), units[step]];
}
