// Speech → text: a clip from the microphone or a file, heard by two heads, and when each word was said.
import { h, bars, card, flow, messages, percent, tensor, took, wordButtons } from "mmkeras/ui.js";
import { heat, wave } from "mmkeras/plots.js";
import { facts, prepare, transcribe } from "mmkeras/models.js";
import { softmax } from "mmkeras/decoding.js";
import { channels, temperature, withTemperature } from "mmkeras/describe.js";
import { RATE, decode, play, recorder } from "mmkeras/audio.js";
import { language, t } from "mmkeras/texts.js";
import { read } from "mmkeras/runtime.js";

const state = { clips: {} };
const HEADS = ["attention", "ctc"];
const FORBIDDEN = { attention: [0, 1, 2], ctc: [1, 2, 3] }; // never in an answer; 0 is the blank of CTC

export function build() {
  const { element: message, say, fail } = messages();
  const own = language(),
    facts_ = facts.models[`speech_to_text-${own}`];
  const shown = h("div"),
    answer = h("div.answer", { "aria-live": "polite" }),
    inside = h("div.inside-model");
  const record = recorder(facts_.longest_seconds + 1, hear, fail);
  const file = h("input.visually-hidden", {
    type: "file",
    accept: "audio/*",
    tabindex: "-1",
    "aria-label": t("choose_clip"),
    onchange: async () => {
      try {
        await hear(await decode(await file.files[0].arrayBuffer()));
      } catch (error) {
        fail(error);
      }
      file.value = "";
    },
  });
  const examples = facts.spoken[own].map((text, i) =>
    h("button.chip", { type: "button", lang: own, onclick: () => example(i, true) }, text),
  );
  const input = card(
    t("clip"),
    h(
      "div.row",
      {},
      record,
      file,
      h("button", { type: "button", onclick: () => file.click() }, t("choose_clip")),
    ),
    h("p.hint", {}, t("say_hint")),
    h("div.row", { role: "group", "aria-label": t("examples") }, ...examples),
    shown,
    message,
  );

  const example = async (i, isHeard) => {
    try {
      const samples = await decode((await read(`examples/${own}-${i}.flac`)).buffer);
      if (isHeard) play(samples);
      await hear(samples);
    } catch (error) {
      fail(error);
    }
  };

  async function hear(samples) {
    state.clips[own] = samples;
    shown.replaceChildren();
    answer.replaceChildren();
    inside.replaceChildren();
    try {
      await prepare(parts);
      const heard = {};
      for (const head of HEADS) {
        const started = performance.now();
        heard[head] = await transcribe(samples, head, own);
        if (!heard[head]) throw new Error("silence");
        heard[head].milliseconds = performance.now() - started;
      }
      say(heard.ctc.isCut ? t("cut", facts_.longest_seconds.toFixed(1)) : "", "caution");
      show(samples, heard, "attention", -1);
    } catch (error) {
      fail(error);
    }
  }

  function show(samples, heard, head, word) {
    const {
      range: [start, stop],
      seconds,
    } = heard.ctc;
    shown.replaceChildren(
      wave(samples, t("wave", (samples.length / RATE).toFixed(1)), [start, stop]),
      h(
        "div.row",
        {},
        h("button", { type: "button", onclick: () => play(samples.subarray(start, stop)) }, t("play")),
      ),
    );
    const select = (of) => (i) => {
      if (i >= 0)
        play(
          samples.subarray(
            start + heard[of].times[i][0] * seconds * RATE,
            start + heard[of].times[i][1] * seconds * RATE,
          ),
        );
      show(samples, heard, of, i);
    };
    answer.replaceChildren(
      ...HEADS.flatMap((of) => [
        h("h4", {}, t(of)),
        h("p.text", { lang: own }, heard[of].text || "–"),
        wordButtons(heard[of].words, of === head ? word : -1, select(of), own, of),
      ]),
      ...(word >= 0
        ? [h("h4", {}, t("next_word", heard[head].words[word])), alternatives(heard[head], head, word)]
        : []),
      h("p.hint", {}, t("word_time_hint")),
      took("listen", heard.attention.milliseconds, heard.ctc.milliseconds),
    );
    const { logMel, features } = heard.attention,
      [, frames, bands] = logMel.dims;
    flow(inside, [
      tensor(t("samples"), [stop - start], t("samples_text"), () =>
        wave(samples.subarray(start, stop), t("samples")),
      ),
      tensor(t("log_mel"), [frames, bands], t("log_mel_text"), () => spectrogram(logMel)),
      tensor(t("features"), features.dims.slice(1), t("speech_features_text"), () => overTime(features)),
      ...HEADS.map((of) =>
        tensor(
          t(`alignment_${of}`),
          [heard[of].words.length, heard[of].valid],
          t(`alignment_${of}_text`),
          () => timeline(heard[of], of === head ? word : -1),
          { open: true },
        ),
      ),
      tensor(
        t("probabilities"),
        [heard.attention.steps.length, facts_.words.length],
        t("probabilities_text"),
        () =>
          withTemperature(() =>
            heard.attention.words.map((text, i) =>
              h("div", {}, h("h4", {}, text), alternatives(heard.attention, "attention", i)),
            ),
          ),
      ),
      tensor(t("ctc_probabilities"), [heard.ctc.valid, facts_.words.length], t("ctc_probabilities_text"), () =>
        everyStep(heard.ctc),
      ),
    ]);
  }

  function alternatives(heard, head, i) {
    const words = head === "ctc" ? heard.vocabulary : facts_.words;
    const logits = head === "ctc" ? heard.logits[peak(heard.weights[i])] : heard.steps[i].logits;
    const p = softmax(logits, temperature(), FORBIDDEN[head]);
    const order = p
      .map((_, id) => id)
      .sort((a, b) => p[b] - p[a])
      .slice(0, 5);
    return bars(
      order.map((id) => [label(words[id]), p[id], percent(p[id])]),
      order.findIndex((id) => words[id] === heard.words[i]),
    );
  }

  const parts = [
    `speech_to_text-${own}.encoder`,
    `speech_to_text-${own}.step`,
    `speech_to_text_ctc-${own}.answer`,
  ];
  state.clips[own] ? hear(state.clips[own]) : example(0, false);
  return h("div.part", {}, h("div.two", {}, input, card(t("transcript"), answer)), inside);
}

const peak = (row) => row.indexOf(Math.max(...row));
const label = (word) => ({ "<end>": t("end"), "<pad>": t("blank"), " ": "␣" })[word] ?? word;

/** Log-mel (F, bands), time to the right and low sounds below. */
function spectrogram({ data, dims: [, frames, bands] }) {
  const turned = Float32Array.from(
    { length: frames * bands },
    (_, i) => data[(i % frames) * bands + bands - 1 - Math.floor(i / frames)],
  );
  return heat(turned, frames, bands, t("log_mel"), { name: "canvas.wide" });
}

const overTime = ({ data, dims: [, steps, units] }) =>
  heat(
    Float32Array.from({ length: steps * units }, (_, i) => data[(i % steps) * units + Math.floor(i / steps)]),
    steps,
    units,
    t("features"),
    { name: "canvas.wide" },
  );

/** A row for each word: its weights over time, and where it was said. */
function timeline({ words, weights, times, seconds, valid }, chosen) {
  const rows = words.map((word, i) => {
    const highest = Math.max(...weights[i]),
      [from, to] = times[i];
    const said = h("span.said");
    Object.assign(said.style, { left: `${(100 * from) / valid}%`, width: `${(100 * (to - from)) / valid}%` });
    return h(
      i === chosen ? "li.chosen" : "li",
      {},
      h("span.label", {}, label(word)),
      h(
        "span.time",
        {},
        heat(
          weights[i],
          weights[i].length,
          1,
          t("word_from_to", word, (from * seconds).toFixed(2), (to * seconds).toFixed(2)),
          { low: 0, high: highest, name: "canvas.row-of-time" },
        ),
        said,
      ),
      h("span.number", {}, `${(from * seconds).toFixed(2)}–${(to * seconds).toFixed(2)} s`),
    );
  });
  return h("ol.timeline", {}, ...rows);
}

/** The most probable token of each time step of CTC. */
function everyStep({ probabilities, vocabulary }) {
  return h(
    "ol.steps",
    {},
    ...probabilities.map((row) => {
      const best = peak(row);
      return h(best ? "li.chosen" : "li", { title: percent(row[best]) }, best ? label(vocabulary[best]) : "·");
    }),
  );
}
