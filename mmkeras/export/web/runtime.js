// The page's files, and the models, which onnxruntime runs in WebAssembly on one thread.
import * as ort from "onnxruntime-web";

/** Content of a file. The single page has each in a <script>, gzipped and in base 85. */
export async function read(name) {
  const inside = document.getElementById(`file:${name}`);
  if (!inside) {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name}: ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  }
  const packed = fromBase85(inside.textContent).subarray(0, Number(inside.dataset.length));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The digits of Python's base64.b85encode, with "," in place of "<".
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";

/** Five digits → four bytes. */
function fromBase85(text) {
  const digits = new Uint8Array(128),
    bytes = new DataView(new ArrayBuffer((text.length / 5) * 4));
  [...DIGITS].forEach((digit, value) => {
    digits[digit.charCodeAt(0)] = value;
  });
  for (let i = 0; i < text.length; i += 5) {
    let value = 0;
    for (let k = i; k < i + 5; k++) value = 85 * value + digits[text.charCodeAt(k)];
    bytes.setUint32((i / 5) * 4, value);
  }
  return new Uint8Array(bytes.buffer);
}

export const readJson = async (name) => JSON.parse(new TextDecoder().decode(await read(name)));

const sessions = {};
let runtime,
  last = Promise.resolve();

async function open(name) {
  runtime ??= read("vendor/ort-wasm-simd-threaded.wasm").then((bytes) => {
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: bytes.buffer });
    ort.env.logLevel = "error";
  });
  const [model] = await Promise.all([read(`models/${name}.onnx`), runtime]);
  return ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

/** Loads a part of a model once: load("captioning-en.encoder"). */
export const load = (name) => (sessions[name] ??= open(name));

/** Runs a part: {name: tensor} → {name: tensor}. One after the other, as a session runs once at a time. */
export async function run(name, inputs) {
  const session = await load(name);
  const result = last.then(() => session.run(inputs));
  last = result.catch(() => {});
  return result;
}

export const floats = (values, shape) => new ort.Tensor("float32", values, shape);
export const ints = (values, shape) => new ort.Tensor("int32", Int32Array.from(values), shape);
