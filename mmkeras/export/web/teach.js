// Teach it three of your own: nearest neighbors on features of the encoders, which learn from one example each.
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
} from "mmkeras/ui.js";
import { spotlight, strip, wave } from "mmkeras/plots.js";
import { dot, encodeImage, encodeSound, facts, prepare } from "mmkeras/models.js";
import { softmax } from "mmkeras/decoding.js";
import { toPixels } from "mmkeras/images.js";
import { decode as decodeSound, play, recorder } from "mmkeras/audio.js";
import { t } from "mmkeras/texts.js";

const SECONDS = 2; // of a recorded example
const SHARPNESS = 30; // of the softmax over similarities, which lie close together
const state = {
  kind: "images",
  temperature: 1,
  images: [[], [], []],
  sounds: [[], [], []],
  names: { images: ["", "", ""], sounds: ["", "", ""] },
  tried: {},
};

export function build() {
  const part = h("div.part"),
    { kind } = state;
  const choice = h(
    "div.row",
    { role: "group", "aria-label": t("kind") },
    ...["images", "sounds"].map((name) =>
      h(
        "button.word",
        {
          type: "button",
          "aria-pressed": String(name === kind),
          onclick: () => {
            state.kind = name;
            part.replaceWith(build());
            document.querySelector(".part .word[aria-pressed=true]").focus();
          },
        },
        t(name),
      ),
    ),
  );
  const { element: message, say, fail } = messages();
  const answer = h("div.answer", { "aria-live": "polite" }),
    inside = h("div.inside-model");
  const lists = state[kind].map(() => h("div.examples"));
  prepare(
    kind === "images" ? ["image_search.image_encoder"] : [`speech_to_text-${facts.languages[0]}.encoder`],
  ).catch(fail);

  /** Controls that take an example; `keep` gets {features, preview, ...}. */
  function controls(keep, label) {
    if (kind === "images") {
      const take = async (bitmap) => keep(await ofImage(bitmap));
      return imageButtons((bitmap) => take(bitmap).catch(fail), fail, { many: true });
    }
    const take = async (samples) => keep(await ofSound(samples));
    const file = h("input.visually-hidden", {
      type: "file",
      accept: "audio/*",
      multiple: true,
      tabindex: "-1",
      "aria-label": t("choose_clip"),
      onchange: async () => {
        await takeFiles([...file.files]);
        file.value = "";
      },
    });
    const takeFiles = async (files) => {
      for (const each of files) {
        try {
          await take(await decodeSound(await each.arrayBuffer()));
        } catch (error) {
          fail(error);
        }
      }
    };
    return {
      element: h(
        "div.row",
        {},
        recorder(SECONDS, take, fail, label),
        file,
        h("button", { type: "button", onclick: () => file.click() }, t("choose_clip")),
      ),
      take: takeFiles,
    };
  }

  const nameOf = (i) => state.names[kind][i] || t("thing", i + 1);
  const things = state[kind].map((examples, i) => {
    const name = h("input", {
      type: "text",
      maxlength: 40,
      "aria-label": t("name_of", i + 1),
      placeholder: t("thing", i + 1),
      value: state.names[kind][i],
      autocomplete: "off",
      oninput: () => {
        state.names[kind][i] = name.value;
        update();
      },
    });
    const { element, take } = controls((example) => {
      examples.push(example);
      update();
    }, t("record"));
    const thing = h("section.card.thing", { "aria-label": t("thing", i + 1) }, name, lists[i], element);
    accept(thing, take);
    return thing;
  });
  const attempt = controls((example) => {
    state.tried[kind] = example;
    update();
  }, t("record"));
  const test = card(t("try_it"), h("p.hint", {}, t("try_hint")), attempt.element, message, answer);
  accept(test, attempt.take);

  function update() {
    lists.forEach((list, i) =>
      list.replaceChildren(
        ...state[kind][i].map((example, k) =>
          h(
            "button.thumbnail",
            {
              type: "button",
              title: t("remove"),
              "aria-label": t("remove_example", k + 1, nameOf(i)),
              onclick: () => {
                state[kind][i].splice(k, 1);
                update();
              },
            },
            example.preview(),
          ),
        ),
      ),
    );
    const tried = state.tried[kind],
      taught = state[kind].map((_, i) => i).filter((i) => state[kind][i].length);
    answer.replaceChildren();
    inside.replaceChildren();
    say("");
    if (taught.length < 2) {
      if (tried || taught.length) say(t(taught.length ? "one_thing" : "no_thing"));
      if (tried) answer.replaceChildren(tried.preview());
      return;
    }
    if (!tried) return say(t("ready_to_try"));
    const started = performance.now();
    const nearest = taught.map((i) =>
      Math.max(...state[kind][i].map(({ features }) => similarity(features, tried.features))),
    );
    const p = softmax(
        nearest.map((value) => SHARPNESS * value),
        state.temperature,
      ),
      best = p.indexOf(Math.max(...p));
    const milliseconds = tried.milliseconds + performance.now() - started;
    answer.replaceChildren(
      h("div.row", {}, tried.preview(), h("p.text", {}, nameOf(taught[best]))),
      bars(
        taught.map((i, k) => [nameOf(i), p[k], percent(p[k])]),
        best,
      ),
      slider(t("temperature"), {
        min: 0.2,
        max: 3,
        step: 0.1,
        value: state.temperature,
        oninput: (value) => {
          state.temperature = value;
          answer.querySelector(".bars").replaceWith(
            bars(
              taught.map((i, k) => [nameOf(i), ...shares(nearest, k)]),
              best,
            ),
          );
        },
      }),
      took("teach", milliseconds),
    );
    flow(inside, [
      tensor(t("features"), [tried.features.length, tried.features[0].length], t(`${kind}_features_text`), () =>
        h("div.several", {}, ...tried.features.map((row) => strip(row, t("features")))),
      ),
      tensor(
        t("similarities"),
        [taught.reduce((sum, i) => sum + state[kind][i].length, 0)],
        t("neighbors_text"),
        () =>
          h(
            "div.several",
            {},
            ...taught.map((i) =>
              h(
                "div",
                {},
                h("h4", {}, nameOf(i)),
                bars(
                  state[kind][i].map((example, k) => {
                    const value = similarity(example.features, tried.features);
                    return [t("example_number", k + 1), value, value.toFixed(3)];
                  }),
                ),
              ),
            ),
          ),
      ),
    ]);
  }

  const shares = (nearest, k) => {
    const p = softmax(
      nearest.map((value) => SHARPNESS * value),
      state.temperature,
    );
    return [p[k], percent(p[k])];
  };

  const reset = h(
    "button",
    {
      type: "button",
      onclick: () => {
        state[kind] = [[], [], []];
        delete state.tried[kind];
        part.replaceWith(build());
      },
    },
    t("forget"),
  );
  part.append(
    choice,
    h("p.hint", {}, t(`${kind}_hint`)),
    h("div.three", {}, ...things),
    test,
    h("div.row", {}, reset),
    inside,
  );
  update();
  return part;
}

/** Cosine similarity of features, averaged over their parts. */
const similarity = (a, b) => a.reduce((sum, row, i) => sum + dot(row, b[i]), 0) / a.length;

async function ofImage(bitmap) {
  const pixels = toPixels(bitmap, facts.models.image_search.image_size),
    started = performance.now();
  return {
    features: (await encodeImage(pixels)).pooled,
    milliseconds: performance.now() - started,
    preview: () => spotlight(bitmap, null, 0, t("image"), "canvas.small"),
  };
}

async function ofSound(samples) {
  const started = performance.now(),
    features = await encodeSound(samples, facts.languages[0]);
  if (!features) throw new Error("silence");
  return {
    features,
    milliseconds: performance.now() - started,
    preview: () => {
      const picture = wave(samples, t("clip"));
      picture.classList.add("small");
      return picture;
    },
    play: () => play(samples),
  };
}
