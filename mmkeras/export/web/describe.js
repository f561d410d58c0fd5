// Image → text: a caption word by word, with the attention of each, and the attributes.
import {
  h,
  accept,
  bars,
  card,
  flow,
  imageButtons,
  messages,
  percent,
  slider,
  tensor,
  took,
  wordButtons,
} from "mmkeras/ui.js";
import { channel, heat, image, spotlight, strip } from "mmkeras/plots.js";
import { attributes, caption, facts, isNovel, prepare } from "mmkeras/models.js";
import { softmax } from "mmkeras/decoding.js";
import { decode, toPixels } from "mmkeras/images.js";
import { language, t, value } from "mmkeras/texts.js";
import { read } from "mmkeras/runtime.js";

const state = { bitmap: null, temperature: 1 };
const FORBIDDEN = [0, 1, 2]; // padding, unknown words and <start> are never generated

export function build() {
  const { element: message, say, fail } = messages();
  const shown = h("div.shown"),
    answer = h("div.answer", { "aria-live": "polite" }),
    inside = h("div.inside-model");
  const thumbnails = h("div.gallery", { role: "group", "aria-label": t("examples") });
  const buttons = imageButtons(show, fail);
  const input = card(
    t("image"),
    shown,
    thumbnails,
    h("p.hint", {}, t("examples_hint")),
    buttons.element,
    message,
  );
  accept(input, buttons.take);
  const part = h("div.part", {}, h("div.two", {}, input, card(t("caption"), answer)), inside);

  const parts = [
    `captioning-${language()}.encoder`,
    `captioning-${language()}.step`,
    "attribute_classifier.answer",
  ];

  async function show(bitmap) {
    state.bitmap = bitmap;
    const size = facts.models[`captioning-${language()}`].image_size;
    const pixels = toPixels(bitmap, size),
      cropped = toPixels(bitmap, size, true);
    await prepare(parts);
    const started = performance.now();
    const said = await caption(pixels, language());
    const milliseconds = performance.now() - started;
    const classes = await attributes(cropped);
    if (bitmap !== state.bitmap) return; // another image was chosen meanwhile
    say(
      isNovel(`captioning-${language()}`, said.novelty)
        ? t(
            "novel",
            said.novelty.toPrecision(2),
            facts.models[`captioning-${language()}`].novelty_threshold.toPrecision(2),
          )
        : "",
      "caution",
    );
    const select = (number) => {
      state.word = number;
      draw({ said, classes, pixels, cropped, milliseconds, select });
    };
    select(-1);
  }

  function draw({ said, classes, pixels, cropped, milliseconds, select }) {
    const side = Math.sqrt(said.features.dims[1]),
      step = said.steps[state.word],
      peak = Math.max(...said.steps.flatMap(({ attention }) => [...attention]));
    const alt = step ? t("attention_of", step.word) : t("image_of", said.text);
    shown.replaceChildren(spotlight(state.bitmap, step && Float32Array.from(step.attention), side, alt));
    const words = said.steps.map(({ word }) => (word === "<end>" ? t("end") : word));
    answer.replaceChildren(
      h("p.text", { lang: language() }, said.text),
      h("p.hint", {}, t("words_hint")),
      wordButtons(words, state.word, select, language()),
      ...(step ? [h("h4", {}, t("next_word", step.word)), probabilities(step)] : []),
      h("h4", {}, t("attributes")),
      h(
        "dl.attributes",
        {},
        ...Object.entries(classes.classes).flatMap(([name, { name: best, probabilities: p }]) => [
          h("dt", {}, t(name)),
          h("dd", {}, value(name, best), h("small", {}, percent(Math.max(...p)))),
        ]),
      ),
      took("describe", milliseconds),
    );
    const { data: features, dims } = said.features;
    flow(inside, [
      tensor(t("pixels"), [...Array(2).fill(Math.sqrt(pixels.length / 3)), 3], t("pixels_text"), () =>
        h(
          "div.row",
          {},
          image(pixels, Math.sqrt(pixels.length / 3), t("pixels")),
          ...["red", "green", "blue"].map((name, c) =>
            heat(channel(pixels, 64, 64, c), 64, 64, value("color", name), { low: 0, high: 255 }),
          ),
        ),
      ),
      tensor(t("features"), [side, side, dims[2]], t("features_text"), () => channels(features, side, dims[2])),
      tensor(t("attention"), [said.steps.length, side, side], t("attention_text"), () =>
        h(
          "div.maps",
          {},
          ...said.steps.map(({ word, attention }) =>
            h(
              "figure",
              {},
              heat(Float32Array.from(attention), side, side, t("attention_of", word), { low: 0, high: peak }),
              h("figcaption", {}, word),
            ),
          ),
        ),
      ),
      tensor(
        t("probabilities"),
        [said.steps.length, said.steps[0].logits.length],
        t("probabilities_text"),
        () =>
          withTemperature(() =>
            said.steps.map((each) => h("div", {}, h("h4", {}, each.word), probabilities(each))),
          ),
      ),
      tensor(t("classifier_features"), [classes.features.dims[1]], t("classifier_features_text"), () =>
        strip(classes.features.data, t("classifier_features")),
      ),
      tensor(
        t("class_probabilities"),
        [
          Object.values(classes.classes)
            .map(({ logits }) => logits.length)
            .join(" + "),
        ],
        t("class_probabilities_text"),
        () =>
          withTemperature(() =>
            Object.entries(classes.classes).map(([name, { logits }]) =>
              h(
                "div",
                {},
                h("h4", {}, t(name)),
                bars(
                  softmax(logits, state.temperature).map((p, i) => [
                    value(name, facts.classes[name][i]),
                    p,
                    percent(p),
                  ]),
                ),
              ),
            ),
          ),
      ),
    ]);
  }

  function probabilities(step) {
    const { words } = facts.models[`captioning-${language()}`];
    const p = softmax(step.logits, state.temperature, FORBIDDEN);
    const order = p
      .map((_, i) => i)
      .sort((a, b) => p[b] - p[a])
      .slice(0, 6);
    return bars(
      order.map((i) => [words[i] === "<end>" ? t("end") : words[i], p[i], percent(p[i])]),
      order.indexOf(step.id),
    );
  }

  examples(thumbnails, (bitmap) => show(bitmap).catch(fail)).catch(fail);
  if (state.bitmap) show(state.bitmap).catch(fail);
  return part;
}

/** Buttons with the example images; `first` is shown at once. */
export async function examples(gallery, show) {
  const captions = facts.captions[language()];
  const bitmaps = await Promise.all(
    captions.map(async (_, i) => decode(new Blob([await read(`examples/${i}.png`)], { type: "image/png" }))),
  );
  gallery.replaceChildren(
    ...bitmaps.map((bitmap, i) => {
      const picture = h("canvas", { width: bitmap.width, height: bitmap.height, "aria-hidden": "true" });
      picture.getContext("2d").drawImage(bitmap, 0, 0);
      return h(
        "button.thumbnail",
        {
          type: "button",
          title: captions[i],
          "aria-label": t("example", i + 1, captions[i]),
          onclick: () => show(bitmap),
        },
        picture,
      );
    }),
  );
  if (!state.bitmap) await show(bitmaps[0]);
}

/** A slider for the channel of features (side, side, count). */
export function channels(features, side, count) {
  const place = h("div");
  const show = (c) =>
    place.replaceChildren(heat(channel(features, side, side, c), side, side, t("channel_of", c)));
  show(0);
  return [place, slider(t("channel"), { min: 0, max: count - 1, step: 1, value: 0, oninput: show })];
}

/** A slider for the temperature above what depends on it. */
export function withTemperature(build) {
  const place = h("div.several", {}, ...build());
  return [
    slider(t("temperature"), {
      min: 0.2,
      max: 3,
      step: 0.1,
      value: state.temperature,
      oninput: (temperature) => {
        state.temperature = temperature;
        place.replaceChildren(...build());
      },
    }),
    place,
  ];
}

export const temperature = () => state.temperature;
