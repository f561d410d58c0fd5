// What each model does, from its input to its answer, with the tensors in between.
import { floats, ints, load, once, read, readJson, run } from "mmkeras/runtime.js";
import { encode, join } from "mmkeras/vocabulary.js";
import { argmax, bestPath, greedy, monotonic, softmax } from "mmkeras/decoding.js";
import { segment } from "mmkeras/audio.js";

export let facts;
export const readFacts = async () => {
  facts = await readJson("facts.json");
};
const of = (name) => facts.models[name];

/** (a, b, ...) tensor → its rows along the axis before the last. */
const rows = ({ data, dims }) => {
  const length = dims.at(-1);
  return Array.from({ length: data.length / length }, (_, i) => data.subarray(i * length, (i + 1) * length));
};

// --- image → text ---

/** Pixels (S, S, 3) → {text, words, steps, features, novelty}. A step is {word, logits, attention over cells}. */
export async function caption(pixels, language) {
  const name = `captioning-${language}`,
    { words, unit, image_size: size } = of(name);
  const { memory, hidden, cell, novelty } = await run(`${name}.encoder`, {
    image: floats(pixels, [1, size, size, 3]),
  });
  const steps = named(await greedy(decoder(name, { memory }), { hidden, cell }, 50), words);
  return { ...spoken(steps, unit), features: memory, novelty: novelty.data[0] };
}

/** A step of an attention decoder, for `greedy`. */
const decoder =
  (name, memory) =>
  async ({ token, hidden, cell }) => {
    const { logits, next_hidden, next_cell, attention } = await run(`${name}.step`, {
      tokens: ints([token], [1, 1]),
      hidden,
      cell,
      ...memory,
    });
    return { logits: logits.data, hidden: next_hidden, cell: next_cell, attention: attention.data };
  };

const named = (steps, words) => steps.map((step) => ({ ...step, word: words[step.id] }));
const spoken = (steps, unit) => {
  const words = steps.map(({ word }) => word).filter((word) => word !== "<end>");
  return { text: join(words, unit), words, steps };
};

/** Pixels (S, S, 3) → {classes: {attribute: {name, probabilities}}, features, novelty}. */
export async function attributes(pixels) {
  const size = of("attribute_classifier").image_size;
  const { features, novelty, ...logits } = await run("attribute_classifier.answer", {
    image: floats(pixels, [1, size, size, 3]),
  });
  const classes = Object.entries(facts.classes).map(([attribute, names]) => {
    const values = logits[attribute].data;
    return [attribute, { name: names[argmax(values)], logits: values, probabilities: softmax(values) }];
  });
  return { classes: Object.fromEntries(classes), features, novelty: novelty.data[0] };
}

// --- text → image ---

/** Noise between two rows: at whole numbers that of the seed in Python, between them on the arc from one to the next. */
export function noise(position) {
  const [a, b] = [Math.floor(position), Math.ceil(position)].map((i) => facts.noise[i]),
    share = position % 1;
  if (!share) return Float32Array.from(a);
  const product = a.reduce((sum, value, i) => sum + value * b[i], 0);
  const angle = Math.acos(product / Math.hypot(...a) / Math.hypot(...b));
  const [first, second] = [1 - share, share].map((part) => Math.sin(part * angle) / Math.sin(angle));
  return Float32Array.from(a, (value, i) => first * value + second * b[i]);
}

/** A prompt → {tokens, text, pixels (S, S, 3) in 0..255, grids: {size: features}}. */
export async function draw(prompt, seed, language) {
  const name = `text_to_image-${language}`,
    tokens = checked(prompt, name, language);
  const drawn = await drawTokens(name, tokens.ids, seed);
  return { tokens, ...drawn };
}

/** Tokens of a text. Throws "empty", or "unknown" with some words of the vocabulary, which has the rare ones last. */
function checked(text, name, language) {
  if (!text.trim()) throw new Error("empty");
  const tokens = encode(text, of(name));
  if (tokens.isKnown) return tokens;
  const known = of(name).words.filter((word) =>
    (language === "zh" ? /\p{Script=Han}/u : /^[a-z]{3,}$/).test(word),
  );
  throw Object.assign(new Error("unknown"), { values: [known.slice(-12).join(" ")] });
}

async function drawTokens(name, ids, seed) {
  const { text } = await run(`${name}.encoder`, { tokens: ints(ids, [1, ids.length]) });
  const values = noise(seed);
  const { image, ...grids } = await run(`${name}.decoder`, { text, noise: floats(values, [1, values.length]) });
  return {
    text: text.data,
    noise: values,
    pixels: Float32Array.from(image.data, (value) => Math.round(255 * value)),
    size: image.dims[1],
    grids,
  };
}

/** The image without each word of a prompt: one {pixels, changed (S, S)} a word. */
export async function influence(drawn, seed, language) {
  const name = `text_to_image-${language}`,
    { parts, ids } = drawn.tokens,
    result = [];
  for (let i = 0; i < parts.length; i++) {
    const { pixels } = await drawTokens(name, ids.toSpliced(1 + i, 1), seed);
    const changed = Float32Array.from(
      { length: pixels.length / 3 },
      (_, p) =>
        [0, 1, 2].reduce((sum, c) => sum + Math.abs(pixels[3 * p + c] - drawn.pixels[3 * p + c]), 0) /
        (3 * 255),
    );
    result.push({ pixels, changed });
  }
  return result;
}

// --- speech → text ---

/**
 * Samples at 16 kHz → {text, words, weights, times, ...} of a head, "attention" or "ctc". `weights` are over time
 * steps, one row a token; `times` the time steps [start, stop] of each. Null if the clip is silent.
 */
export async function transcribe(samples, head, language) {
  const name = head === "ctc" ? `speech_to_text_ctc-${language}` : `speech_to_text-${language}`;
  const { words, unit, sample_rate_hz: rate, longest_seconds: longest, step_seconds: seconds } = of(name);
  const part = segment(samples, rate, longest);
  if (!part) return null;
  const [start, stop] = part.range,
    inputs = padded(samples.subarray(start, stop), rate);
  const valid = Math.ceil((stop - start) / rate / seconds); // time steps
  const answer = await (head === "ctc" ? withCtc : withAttention)(name, inputs, words, unit, valid);
  return { ...answer, times: monotonic(answer.weights), range: part.range, isCut: part.isCut, seconds };
}

async function withAttention(name, inputs, words, unit, valid) {
  const { memory, mask, hidden, cell, log_mel } = await run(`${name}.encoder`, inputs);
  const steps = named(await greedy(decoder(name, { memory, mask }), { hidden, cell }, 128), words);
  const answer = spoken(steps, unit);
  return {
    ...answer,
    weights: answer.words.map((_, i) => steps[i].attention.subarray(0, valid)),
    features: memory,
    logMel: log_mel,
    valid,
  };
}

async function withCtc(name, inputs, words, unit, valid) {
  const { logits, memory } = await run(`${name}.answer`, inputs);
  const frames = rows(logits).slice(0, valid),
    ids = bestPath(frames);
  const probabilities = frames.map((row) => softmax(row)); // (S, V)
  const answer = spoken(
    ids.map((id) => ({ id, word: words[id] })),
    unit,
  );
  return {
    ...answer,
    weights: ids.map((id) => probabilities.map((row) => row[id])),
    logits: frames,
    probabilities,
    vocabulary: words,
    features: memory,
    valid,
  };
}

// --- image search ---

/** The vectors of the emoji (N, units). */
export const vectors = () =>
  once("vectors", async () => {
    const units = facts.emoji.units,
      values = fromHalf(new Uint16Array((await read("emoji.bin")).buffer));
    return Array.from({ length: values.length / units }, (_, i) => values.subarray(i * units, (i + 1) * units));
  });

const fromHalf = (bits) =>
  Float32Array.from(bits, (half) => {
    const sign = half >> 15 ? -1 : 1,
      exponent = (half >> 10) & 31,
      fraction = half & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });

export const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/** A vector → {order, similarity} of all emoji, the best first. */
export async function rank(vector) {
  const similarity = (await vectors()).map((row) => dot(row, vector));
  return {
    similarity,
    order: similarity.map((_, i) => i).sort((a, b) => similarity[b] - similarity[a] || a - b),
  };
}

/** A text → {tokens, vector}. Errors name words of a language. */
export async function encodeText(text, language) {
  const tokens = checked(text, "image_search", language);
  const { vector } = await run("image_search.text_encoder", {
    tokens: ints(tokens.ids, [1, tokens.ids.length]),
  });
  return { tokens, vector: vector.data };
}

/** Pixels (S, S, 3) → {vector, grid: features of each cell, novelty}. */
export async function encodeImage(pixels) {
  const size = of("image_search").image_size;
  const { vector, grid, novelty } = await run("image_search.image_encoder", {
    image: floats(pixels, [1, size, size, 3]),
  });
  return { vector: vector.data, grid, pooled: [unit(mean(rows(grid)))], novelty: novelty.data[0] };
}

// --- teaching ---

const mean = (list) =>
  Float32Array.from(list[0], (_, i) => list.reduce((sum, row) => sum + row[i], 0) / list.length);
const unit = (vector) => {
  const length = Math.hypot(...vector) || 1;
  return vector.map((value) => value / length);
};

/** Samples at 16 kHz → the speech encoder's features, averaged over each quarter of what was said; null if silent. */
export async function encodeSound(samples, language) {
  const name = `speech_to_text-${language}`,
    { sample_rate_hz: rate, step_seconds: seconds } = of(name);
  const part = segment(samples, rate, 0);
  if (!part) return null;
  const [start, stop] = part.range;
  const { memory } = await run(`${name}.encoder`, padded(samples.subarray(start, stop), rate));
  const steps = rows(memory).slice(0, Math.max(1, Math.ceil((stop - start) / rate / seconds)));
  const edges = Array.from({ length: 5 }, (_, i) => Math.floor((i * steps.length) / 4));
  return [0, 1, 2, 3].map((i) => unit(mean(steps.slice(edges[i], Math.max(edges[i] + 1, edges[i + 1])))));
}

/** A clip as the speech encoders take it: padded to half seconds. */
function padded(clip, rate) {
  const audio = new Float32Array(Math.ceil(clip.length / (rate / 2)) * (rate / 2));
  audio.set(clip);
  return { audio: floats(audio, [1, audio.length]), length: ints([clip.length], [1]) };
}

// --- all ---

/** Whether an image is unlike any in training. */
export const isNovel = (name, score) => score > of(name).novelty_threshold;

/** Loads the parts of a task, so that the first answer is as fast as the others. */
export const prepare = (names) => Promise.all(names.map(load));
