// The page's files, and the models, which onnxruntime runs in WebAssembly on one thread.
import * as ort from "onnxruntime-web";

/** Content of a file. The single page has each in a <script>, gzipped, seven bits a character. */
export async function read(name) {
  const inside = document.getElementById(`file:${name}`);
  if (!inside) {
    const response = await fetch(name).catch(() => null);
    if (!response?.ok) throw Object.assign(new Error("network"), { values: [name] });
    return new Uint8Array(await response.arrayBuffer());
  }
  const packed = unpack(inside.textContent, Number(inside.dataset.length));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Characters of seven bits → bytes. */
function unpack(text, length) {
  const bytes = new Uint8Array(length);
  for (let i = 0, at = 0, held = 0, count = 0; at < length; i++) {
    held = ((held & 127) << 7) | (text.charCodeAt(i) & 127);
    count += 7;
    if (count >= 8) bytes[at++] = held >> (count -= 8);
  }
  return bytes;
}

export const readJson = async (name) => JSON.parse(new TextDecoder().decode(await read(name)));

const made = {};
/** What `make` promises, made once for each name. What failed is made again the next time. */
export const once = (name, make) =>
  (made[name] ??= make().catch((error) => {
    delete made[name];
    throw error;
  }));

let last = Promise.resolve();

async function open(name) {
  const runtime = once("runtime", async () => {
    const { buffer } = await read("vendor/ort-wasm-simd-threaded.wasm");
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: buffer });
    ort.env.logLevel = "error";
  });
  const [model] = await Promise.all([read(`models/${name}.onnx`), runtime]);
  return ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

/** Loads a part of a model: load("captioning-en.encoder"). */
export const load = (name) => once(name, () => open(name));

/** Runs a part: {name: tensor} → {name: tensor}. One after the other, as a session runs once at a time. */
export async function run(name, inputs) {
  const session = await load(name);
  const result = last.then(() => session.run(inputs));
  last = result.catch(() => {});
  return result;
}

export const floats = (values, shape) => new ort.Tensor("float32", values, shape);
export const ints = (values, shape) => new ort.Tensor("int32", Int32Array.from(values), shape);
