// Images as the models were trained on them: RGB on white, resized as Pillow does it.

const LARGEST = 100e6; // pixels, above which browsers fail or stall
const STRIP = 2 ** 21; // pixels that are taken from a canvas at a time: an image of 40 megapixels would need 160 MB

/** A file, blob or video → an ImageBitmap, rotated as its EXIF orientation says. Throws "image" or "large". */
export async function decode(source) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("image");
  }
  if (bitmap.width * bitmap.height > LARGEST) throw new Error("large");
  return bitmap;
}

/**
 * An ImageBitmap → (size, size, 3) in 0..255.
 * @param {boolean} crop Whether to take the square in the middle, or else all of the image.
 */
export function toPixels(bitmap, size, crop = false) {
  const side = Math.min(bitmap.width, bitmap.height);
  const [width, height] = crop ? [side, side] : [bitmap.width, bitmap.height];
  const left = crop ? Math.floor((bitmap.width - width) / 2) : 0;
  const top = crop ? Math.floor((bitmap.height - height) / 2) : 0;
  const across = coefficients(width, size),
    down = coefficients(height, size);
  const narrow = new Uint8Array(height * size * 3); // (height, size, 3)
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  for (let y = 0; y < height; y += rows) {
    const count = Math.min(rows, height - y);
    context.fillStyle = "white"; // below what is transparent
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, left, top + y, width, count, 0, 0, width, count);
    const { data } = context.getImageData(0, 0, width, count);
    for (let row = 0; row < count; row++) {
      for (let x = 0; x < size; x++) {
        for (let c = 0; c < 3; c++) {
          narrow[3 * ((y + row) * size + x) + c] = weighted(across[x], (i) => data[4 * (row * width + i) + c]);
        }
      }
    }
  }
  const pixels = new Float32Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    for (let i = 0; i < 3 * size; i++)
      pixels[3 * y * size + i] = weighted(down[y], (row) => narrow[3 * row * size + i]);
  }
  return pixels;
}

// Pillow's bilinear filter, whose support grows with the factor, so that nothing is left out. It computes with
// integers of 22 bits after the point and rounds after each of the two directions. (Since version 13 it begins with
// the other direction if an image is about twice as high as wide: a value then differs by 1.)
const BITS = 22;

function coefficients(from, to) {
  const scale = from / to,
    support = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    if (from === to) return { first: i, weights: [1 << BITS] };
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const stop = Math.min(from, Math.trunc(center + support + 0.5));
    const triangle = Array.from({ length: stop - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - center + 0.5) * (1 / support))),
    );
    const factor = 1 / triangle.reduce((a, b) => a + b, 0);
    return { first, weights: triangle.map((weight) => Math.trunc(0.5 + weight * factor * (1 << BITS))) };
  });
}

function weighted({ first, weights }, value) {
  let sum = 1 << (BITS - 1);
  for (let k = 0; k < weights.length; k++) sum += weights[k] * value(first + k);
  return Math.min(255, sum >> BITS);
}
