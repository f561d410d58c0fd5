// Clips: from a microphone or a file to samples at 16 kHz, without the silence around speech.
import { t } from "mmkeras/texts.js";
import { h } from "mmkeras/ui.js";

export const RATE = 16000;
const LONGEST_FILE = 60; // seconds

/** Without its mean, at 16 kHz, from one channel or the average of several. */
async function toSamples(channels, rate) {
  let samples = channels[0];
  if (channels.length > 1) {
    samples = Float32Array.from(
      channels[0],
      (_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length,
    );
  }
  if (!samples.length) return samples;
  if (rate !== RATE) {
    const context = new OfflineAudioContext(1, Math.ceil((samples.length * RATE) / rate), RATE);
    const buffer = context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.start();
    samples = (await context.startRendering()).getChannelData(0);
  }
  const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
  return samples.map((value) => value - mean);
}

/** Bytes of a file with sound → samples. Throws "sound" for other files. */
export async function decode(bytes) {
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  } catch {
    throw new Error("sound");
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) =>
    buffer.getChannelData(i).subarray(0, LONGEST_FILE * buffer.sampleRate),
  );
  return toSamples(channels, buffer.sampleRate);
}

// An AudioWorklet hands on what it hears. Its code is in its address: a file:// page loads it from nowhere else.
const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
});`;

/**
 * Records from the microphone until `stop` of the result is called, at most `seconds`.
 * @param {(level: number) => void} onLevel Called with the loudness in 0..1.
 * @returns {stop, samples: a promise of samples}. Throws "microphone" (there is none) or "permission".
 */
export async function record(seconds, onLevel) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("microphone");
  let stream;
  try {
    // What a phone call needs would change the sounds that the model was trained on.
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
  } catch (error) {
    throw new Error(["NotAllowedError", "SecurityError"].includes(error.name) ? "permission" : "microphone");
  }
  const context = new AudioContext();
  await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(TAP)}`);
  const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 }),
    parts = [];
  let count = 0,
    stop;
  const ended = new Promise((resolve) => {
    stop = resolve;
  });
  tap.port.onmessage = ({ data }) => {
    parts.push(data);
    count += data.length;
    onLevel?.(Math.min(1, 4 * Math.sqrt(data.reduce((sum, value) => sum + value * value, 0) / data.length)));
    if (count > seconds * context.sampleRate) stop();
  };
  context.createMediaStreamSource(stream).connect(tap);
  const samples = ended.then(async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    const all = new Float32Array(count);
    parts.reduce((offset, part) => {
      all.set(part, offset);
      return offset + part.length;
    }, 0);
    return toSamples([all], context.sampleRate);
  });
  return { stop, samples };
}

let speaker;
/** Plays samples. */
export function play(samples) {
  speaker ??= new AudioContext();
  speaker.resume();
  const buffer = speaker.createBuffer(1, Math.max(1, samples.length), RATE),
    source = speaker.createBufferSource();
  buffer.copyToChannel(samples, 0);
  source.buffer = buffer;
  source.connect(speaker.destination);
  source.start();
}

/** A button that records until it is pressed again, at most `seconds`; `hear` gets the samples. */
export function recorder(seconds, hear, fail, label = t("record")) {
  let recording;
  const level = h("span.level", { "aria-hidden": "true" });
  const text = h("span", {}, label),
    button = h(
      "button.primary.record",
      { type: "button", "aria-pressed": "false", onclick: press },
      text,
      level,
    );
  async function press() {
    if (recording) return recording.stop();
    button.disabled = true; // until the microphone is allowed
    try {
      recording = await record(seconds, (loudness) => {
        level.style.width = `${100 * loudness}%`;
      });
      button.disabled = false;
      button.setAttribute("aria-pressed", "true");
      text.textContent = t("stop");
      await hear(await recording.samples);
    } catch (error) {
      fail(error);
    } finally {
      recording = undefined;
      button.disabled = false;
      button.setAttribute("aria-pressed", "false");
      text.textContent = label;
      level.style.width = "0";
    }
  }
  return button;
}

// As `mmkeras.media.long_form`: silence is power below twice the noise floor, or 40 dB below the loudest 50 ms.
const ABOVE_NOISE = 2,
  BELOW_PEAK = 1e-4,
  LEAST_CONTRAST = 50,
  SILENT_PEAK = 1e-4;

/** The range [start, stop] of samples without the silence around speech. */
export function trim(samples, rate) {
  const hop = rate / 100,
    power = new Float64Array(Math.ceil(samples.length / hop)); // of 10 ms each
  samples.forEach((value, i) => {
    power[Math.floor(i / hop)] += value * value;
  });
  if (power.length > 5) {
    const around = power.map((_, i) => {
      let sum = 0;
      for (let k = i - 2; k <= i + 2; k++) sum += power[k] ?? 0;
      return sum;
    });
    const full = around.slice(2, -2),
      loudest = Math.max(...full);
    const limit = Math.max(ABOVE_NOISE * Math.min(...full), BELOW_PEAK * loudest);
    const first = around.findIndex((value) => value > limit),
      last = around.findLastIndex((value) => value > limit);
    if (first >= 0 && limit * LEAST_CONTRAST <= loudest)
      return [first * hop, Math.min((last + 1) * hop, samples.length)];
  }
  return [0, samples.length];
}

/** The part of a clip that a model takes, cut after its longest clip: {range, isCut}. Null if it is silent. */
export function segment(samples, rate, longest) {
  let [start, stop] = trim(samples, rate);
  const isCut = longest > 0 && stop - start > longest * rate;
  if (isCut) stop = start + Math.floor(longest * rate);
  const isSilent = samples.subarray(start, stop).every((value) => Math.abs(value) <= SILENT_PEAK);
  return isSilent ? null : { range: [start, stop], isCut };
}
