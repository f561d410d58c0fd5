// Text → image: a prompt and noise become an image; what each word of the prompt changes.
import { h, bars, card, flow, messages, percent, slider, tensor, took, wordButtons } from "mmkeras/ui.js";
import { heat, image, strip } from "mmkeras/plots.js";
import { attributes, draw, facts, influence, prepare } from "mmkeras/models.js";
import { channels } from "mmkeras/describe.js";
import { language, t, value } from "mmkeras/texts.js";

const state = { prompts: {}, position: 0 };

export function build() {
  const { element: message, say, fail } = messages();
  const name = `text_to_image-${language()}`,
    examples = facts.captions[language()];
  const shown = h("div.shown"),
    answer = h("div.answer", { "aria-live": "polite" }),
    inside = h("div.inside-model");
  const prompt = h("input", {
    type: "text",
    id: "prompt",
    maxlength: 200,
    lang: language(),
    autocomplete: "off",
    value: state.prompts[language()] ?? examples[1],
  });
  const form = h(
    "form.row.line",
    {
      onsubmit: (event) => {
        event.preventDefault();
        update();
      },
    },
    prompt,
    h("button.primary", { type: "submit" }, t("draw_button")),
  );
  const chips = h(
    "div.row",
    {},
    ...examples.slice(2, 6).map((text) =>
      h(
        "button.chip",
        {
          type: "button",
          lang: language(),
          onclick: () => {
            prompt.value = text;
            update();
          },
        },
        text,
      ),
    ),
  );
  const seeds = slider(t("noise"), {
    min: 0,
    max: facts.noise.length - 1,
    step: 0.1,
    value: state.position,
    format: (x) => x.toFixed(1),
    oninput: (x) => {
      state.position = x;
      update();
    },
  });
  const input = card(
    t("prompt"),
    h("label.visually-hidden", { for: "prompt" }, t("prompt")),
    form,
    chips,
    seeds,
    h("p.hint", {}, t("noise_hint")),
    message,
  );

  let wanted = 0;
  async function update() {
    const mine = ++wanted; // while a slider moves, only the last drawing counts
    state.prompts[language()] = prompt.value;
    try {
      await prepare(parts);
      const started = performance.now();
      const drawn = await draw(prompt.value, state.position, language());
      const milliseconds = performance.now() - started;
      const [seen, without] = [
        await attributes(drawn.pixels),
        await influence(drawn, state.position, language()),
      ];
      if (mine !== wanted) return;
      say(
        drawn.tokens.unknown.length ? t("unknown_words", drawn.tokens.unknown.join(t("comma"))) : "",
        "caution",
      );
      const select = (word) => show(drawn, seen, without, milliseconds, word, select);
      select(-1);
    } catch (error) {
      if (mine === wanted) {
        shown.replaceChildren();
        answer.replaceChildren();
        inside.replaceChildren();
        fail(error);
      }
    }
  }

  function show(drawn, seen, without, milliseconds, word, select) {
    const { size, tokens } = drawn,
      alt = t("drawing_of", prompt.value);
    shown.replaceChildren(
      ...(word < 0
        ? [image(drawn.pixels, size, alt, "canvas.image.photo")]
        : [
            h(
              "div.pair",
              {},
              h(
                "figure",
                {},
                image(without[word].pixels, size, t("without", tokens.parts[word])),
                h("figcaption", {}, t("without", tokens.parts[word])),
              ),
              h(
                "figure",
                {},
                heat(without[word].changed, size, size, t("changed_by", tokens.parts[word]), {
                  low: 0,
                  high: 1,
                }),
                h("figcaption", {}, t("changed")),
              ),
            ),
          ]),
    );
    answer.replaceChildren(
      h("p.hint", {}, t("leave_out_hint")),
      wordButtons(tokens.parts, word, select, language()),
      h("h4", {}, t("classifier_sees")),
      h(
        "dl.attributes",
        {},
        ...Object.entries(seen.classes).flatMap(([attribute, { name: best, probabilities }]) => [
          h("dt", {}, t(attribute)),
          h("dd", {}, value(attribute, best), h("small", {}, percent(Math.max(...probabilities)))),
        ]),
      ),
      took("draw", milliseconds),
    );
    const highest = without.reduce((most, { changed }) => Math.max(most, ...changed), 0);
    flow(inside, [
      tensor(t("tokens"), [tokens.ids.length], t("tokens_text"), () =>
        h(
          "div.words",
          {},
          ...tokens.ids.map((id) =>
            h("span.token", {}, facts.models[name].words[id], h("small", {}, String(id))),
          ),
        ),
      ),
      tensor(t("text_vector"), [drawn.text.length], t("text_vector_text"), () =>
        strip(drawn.text, t("text_vector")),
      ),
      tensor(t("noise"), [drawn.noise.length], t("noise_text"), () => strip(drawn.noise, t("noise"))),
      ...Object.values(drawn.grids)
        .sort((a, b) => a.dims[1] - b.dims[1])
        .map(({ data, dims: [, side, , count] }) =>
          tensor(t("grid", side), [side, side, count], t("grid_text"), () => channels(data, side, count)),
        ),
      tensor(t("image"), [size, size, 3], t("drawn_text"), () =>
        h("div.row", {}, image(drawn.pixels, size, alt)),
      ),
      tensor(t("influence"), [tokens.parts.length, size, size], t("influence_text"), () =>
        h(
          "div.maps",
          {},
          ...tokens.parts.map((part, i) =>
            h(
              "figure",
              {},
              heat(without[i].changed, size, size, t("changed_by", part), { low: 0, high: highest }),
              h("figcaption", {}, part),
            ),
          ),
        ),
      ),
      tensor(
        t("class_probabilities"),
        [
          Object.values(seen.classes)
            .map(({ logits }) => logits.length)
            .join(" + "),
        ],
        t("class_probabilities_text"),
        () =>
          h(
            "div.several",
            {},
            ...Object.entries(seen.classes).map(([attribute, { probabilities }]) =>
              h(
                "div",
                {},
                h("h4", {}, t(attribute)),
                bars(
                  probabilities.map((p, i) => [value(attribute, facts.classes[attribute][i]), p, percent(p)]),
                ),
              ),
            ),
          ),
      ),
    ]);
  }

  const parts = [`${name}.encoder`, `${name}.decoder`, "attribute_classifier.answer"];
  update();
  return h("div.part", {}, h("div.two", {}, input, card(t("image"), shown, answer)), inside);
}
