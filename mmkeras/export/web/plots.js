// Tensors as pictures. Each canvas has a text for those who do not see it.
import { h } from "mmkeras/ui.js";

const STOPS = [
  [13, 8, 60],
  [84, 27, 109],
  [187, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
]; // dark to bright, as "inferno"

/** A value in 0..1 → a color. */
export function color(value) {
  const place = Math.max(0, Math.min(1, value || 0)) * (STOPS.length - 1),
    i = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[i].map((from, c) => from + (place - i) * (STOPS[i + 1][c] - from));
}

export function canvas(width, height, alt, name = "canvas.plot") {
  return h(name, { width, height, role: "img", "aria-label": alt });
}

/** Pixels (S, S, 3) in 0..255. */
export function image(pixels, size, alt, name = "canvas.image") {
  const element = canvas(size, size, alt, name),
    data = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) data.data[4 * i + c] = pixels[3 * i + c];
    data.data[4 * i + 3] = 255;
  }
  element.getContext("2d").putImageData(data, 0, 0);
  return element;
}

/** Values (height, width) as colors, from the lowest to the highest, or between given limits. */
export function heat(values, width, height, alt, { low, high, name = "canvas.heat" } = {}) {
  low ??= values.reduce((a, b) => Math.min(a, b), Infinity);
  high ??= values.reduce((a, b) => Math.max(a, b), -Infinity);
  const element = canvas(width, height, alt, name),
    data = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    data.data.set([...color((values[i] - low) / (high - low || 1)), 255], 4 * i);
  }
  element.getContext("2d").putImageData(data, 0, 0);
  return element;
}

/** One channel of features (height, width, channels). */
export const channel = (features, height, width, c) =>
  Float32Array.from({ length: height * width }, (_, i) => features[i * (features.length / height / width) + c]);

/** An ImageBitmap with attention (h, w) over it: dark where there is little. */
export function spotlight(bitmap, weights, side, alt, name = "canvas.photo") {
  const scale = 384 / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width, bitmap.height].map((size) => Math.max(1, Math.round(size * scale)));
  const element = canvas(width, height, alt, name),
    context = element.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(bitmap, 0, 0, width, height);
  if (weights) {
    const highest = Math.max(...weights),
      shade = new ImageData(side, side);
    for (let i = 0; i < side * side; i++) shade.data.set([8, 10, 30, 215 * (1 - weights[i] / highest)], 4 * i);
    const small = new OffscreenCanvas(side, side);
    small.getContext("2d").putImageData(shade, 0, 0);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, width, height);
  }
  return element;
}

/** A vector as a strip of colors, blue below 0 and red above. */
export function strip(values, alt) {
  const highest = Math.max(1e-9, ...Array.from(values, Math.abs));
  const columns = Math.min(values.length, 64),
    lines = Math.ceil(values.length / columns);
  const element = canvas(columns, lines, alt, "canvas.heat.strip"),
    data = new ImageData(columns, lines);
  values.forEach((value, i) => {
    const share = value / highest,
      other = 235 * (1 - Math.abs(share));
    data.data.set(share < 0 ? [other, other + 10, 235, 255] : [235, other, other + 10, 255], 4 * i);
  });
  element.getContext("2d").putImageData(data, 0, 0);
  element.style.aspectRatio = `${columns} / ${2 * lines}`;
  return element;
}

/** Samples as a waveform, in the color of the text. */
export function wave(samples, alt, range) {
  const element = canvas(640, 96, alt, "canvas.plot"),
    context = element.getContext("2d");
  const highest = Math.max(
    0.01,
    samples.reduce((a, b) => Math.max(a, Math.abs(b)), 0),
  );
  for (let x = 0; x < 640; x++) {
    const from = Math.floor((x * samples.length) / 640),
      to = Math.max(from + 1, Math.floor(((x + 1) * samples.length) / 640));
    const loudest = samples.subarray(from, to).reduce((a, b) => Math.max(a, Math.abs(b)), 0) / highest;
    context.fillStyle = !range || (from >= range[0] && from < range[1]) ? "#3c6fdc" : "#9aa3b5";
    context.fillRect(x, 48 - 46 * loudest, 1, Math.max(1, 92 * loudest));
  }
  return element;
}
