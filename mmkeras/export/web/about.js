// What the models know, how good they are, and whose work is inside.
import { h, card, percent } from "mmkeras/ui.js";
import { facts } from "mmkeras/models.js";
import { language, t, value } from "mmkeras/texts.js";

// The score of each model that says most, and its name here.
const SCORES = {
  captioning: "scene_accuracy",
  attribute_classifier: "all",
  text_to_image: "all",
  speech_to_text: "scene_accuracy",
  speech_to_text_ctc: "scene_accuracy",
  image_search: "recall_at_1",
};

export function build() {
  const known = Object.entries(facts.classes).flatMap(([attribute, names]) => [
    h("dt", {}, t(attribute)),
    h("dd", {}, names.map((name) => value(attribute, name)).join(t("comma"))),
  ]);
  const rows = Object.entries(SCORES).map(([model, score]) => {
    const { scores } = facts.models[model] ?? facts.models[`${model}-${language()}`];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, t(`model_${model}`)),
      h("td", {}, percent(scores[score])),
      h("td", {}, t(`score_${score}`)),
    );
  });
  const found = facts.emoji.found[language()];
  rows.push(
    h(
      "tr",
      {},
      ...[h("th", { scope: "row" }, t("model_emoji")), h("td", {}, percent(found)), h("td", {}, t("score_names"))],
    ),
  );
  const paragraphs = (name, count) =>
    Array.from({ length: count }, (_, i) => h("p", {}, t(`${name}_${i + 1}`)));
  return h(
    "div.part.prose",
    {},
    card(
      t("know"),
      ...paragraphs("know", 2),
      facts.models.image_search.data.includes("emoji") ? h("p", {}, t("know_emoji")) : null,
      h("dl.attributes", {}, ...known),
    ),
    card(t("quality"), h("p", {}, t("quality_text")), h("table", {}, h("tbody", {}, ...rows))),
    card(t("privacy"), ...paragraphs("privacy", 1)),
    card(t("keyboard"), ...paragraphs("keyboard", 1)),
    card(t("credits"), ...paragraphs("credits", 3)),
  );
}
