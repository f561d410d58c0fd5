// Image search: the emoji whose vectors are most similar to that of a text or of an image.
import { h, accept, bars, card, flow, imageButtons, messages, slider, tensor, took } from "mmkeras/ui.js";
import { image, spotlight, strip } from "mmkeras/plots.js";
import { encodeImage, encodeText, facts, isNovel, prepare, rank, vectors } from "mmkeras/models.js";
import { encode } from "mmkeras/vocabulary.js";
import { toPixels } from "mmkeras/images.js";
import { language, t } from "mmkeras/texts.js";
import { once, read } from "mmkeras/runtime.js";

const state = { texts: {}, count: 12 };
let sheet;

export function build() {
  const { element: message, say, fail } = messages();
  const name = language(),
    examples = knownNames(6),
    results = h("div.results"),
    inside = h("div.inside-model"),
    shown = h("div.shown");
  const query = h("input", {
    type: "text",
    id: "query",
    maxlength: 200,
    lang: name,
    autocomplete: "off",
    value: state.texts[name] ?? examples[0],
  });
  const form = h(
    "form.row.line",
    {
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        byText();
      },
    },
    query,
    h("button.primary", { type: "submit" }, t("search_button")),
  );
  const chips = examples.map((text) =>
    h(
      "button.chip",
      {
        type: "button",
        lang: name,
        onclick: () => {
          query.value = text;
          byText();
        },
      },
      text,
    ),
  );
  const buttons = imageButtons(byImage, fail);
  const input = card(
    t("query"),
    h("label.visually-hidden", { for: "query" }, t("query")),
    form,
    h("div.row", {}, ...chips),
    h("p.hint", {}, t("or_image")),
    buttons.element,
    shown,
    message,
  );
  accept(input, buttons.take);

  const attempt = async (action) => {
    try {
      sheet = await once("sheet", async () => createImageBitmap(new Blob([await read("emoji.webp")])));
      await action();
    } catch (error) {
      results.replaceChildren();
      inside.replaceChildren();
      shown.replaceChildren();
      fail(error);
    }
  };

  const byText = () =>
    attempt(async () => {
      state.texts[name] = query.value;
      await prepare(["image_search.text_encoder"]);
      const started = performance.now(),
        { tokens, vector } = await encodeText(query.value, name),
        found = await rank(vector);
      shown.replaceChildren();
      say(tokens.unknown.length ? t("unknown_words", tokens.unknown.join(t("comma"))) : "", "caution");
      show(found, vector, performance.now() - started, [
        tensor(t("tokens"), [tokens.ids.length], t("tokens_text"), () =>
          h(
            "div.words",
            {},
            ...tokens.ids.map((id) =>
              h("span.token", {}, facts.models.image_search.words[id], h("small", {}, String(id))),
            ),
          ),
        ),
      ]);
    });

  function byImage(bitmap) {
    return attempt(async () => {
      await prepare(["image_search.image_encoder"]);
      const size = facts.models.image_search.image_size,
        pixels = toPixels(bitmap, size),
        started = performance.now();
      const { vector, novelty } = await encodeImage(pixels),
        found = await rank(vector);
      shown.replaceChildren(spotlight(bitmap, null, 0, t("query")));
      say(
        isNovel("image_search", novelty)
          ? t("novel", novelty.toPrecision(2), facts.models.image_search.novelty_threshold.toPrecision(2))
          : "",
        "caution",
      );
      show(found, vector, performance.now() - started, [
        tensor(t("pixels"), [size, size, 3], t("pixels_text"), () => image(pixels, size, t("pixels"))),
      ]);
    });
  }

  const byEmoji = (i) =>
    attempt(async () => {
      const vector = (await vectors())[i],
        started = performance.now(),
        found = await rank(vector);
      shown.replaceChildren(picture(i));
      say("");
      show(found, vector, performance.now() - started, []);
    });

  function show({ order, similarity }, vector, milliseconds, before) {
    results.replaceChildren(
      h(
        "div.found",
        {},
        ...order.slice(0, state.count).map((i) =>
          h(
            "button.result",
            {
              type: "button",
              "aria-label": t("similar_to", named(i), similarity[i].toFixed(2)),
              onclick: () => byEmoji(i),
            },
            picture(i),
            h("span", {}, named(i)),
            h("small", {}, similarity[i].toFixed(2)),
          ),
        ),
      ),
      h("p.hint", {}, t("result_hint")),
      took("search", milliseconds),
    );
    flow(inside, [
      ...before,
      tensor(t("query_vector"), [vector.length], t("query_vector_text"), () =>
        strip(vector, t("query_vector")),
      ),
      tensor(t("image_vectors"), [similarity.length, vector.length], t("image_vectors_text"), async () =>
        h(
          "div.several",
          {},
          ...(await Promise.all(
            order
              .slice(0, 6)
              .map(async (i) =>
                h("figure", {}, strip((await vectors())[i], named(i)), h("figcaption", {}, named(i))),
              ),
          )),
        ),
      ),
      tensor(t("similarities"), [similarity.length], t("similarities_text"), () => bars(histogram(similarity))),
    ]);
  }

  byText();
  return h("div.part", {}, h("div.two", {}, input, card(t("found"), results)), inside);
}

const named = (i) => facts.emoji.names[i][language() === "zh" ? 2 : 1];

/** Names of emoji, evenly spaced, of which the model knows every word. */
function knownNames(count) {
  const known = facts.emoji.names
    .map((_, i) => named(i))
    .filter((name) => !encode(name, facts.models.image_search).unknown.length);
  return Array.from(
    { length: Math.min(count, known.length) },
    (_, i) => known[Math.floor(((i + 0.5) * known.length) / count)],
  );
}

/** The drawing of an emoji, cut from the sheet. */
function picture(i) {
  const { size, columns } = facts.emoji,
    element = h("canvas.emoji", { width: size, height: size, role: "img", "aria-label": named(i) });
  element
    .getContext("2d")
    .drawImage(sheet, (i % columns) * size, Math.floor(i / columns) * size, size, size, 0, 0, size, size);
  return element;
}

function histogram(values) {
  const counts = new Array(10).fill(0);
  values.forEach((value) => {
    counts[Math.min(9, Math.max(0, Math.floor(5 * (value + 1))))]++;
  });
  return counts.map((count, i) => [
    `${(i / 5 - 1).toFixed(1)} … ${((i + 1) / 5 - 1).toFixed(1)}`,
    count / values.length,
    String(count),
  ]);
}
