// The pieces that the parts of the page are built from.
import { t, error as wording } from "mmkeras/texts.js";
import { decode } from "mmkeras/images.js";

/** h("p.note", {id: "a"}, "text", element) → an element. */
export function h(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const card = (title, ...children) => h("section.card", {}, h("h3", {}, title), ...children);

let count = 0;
export function slider(label, { min, max, step, value, format = (x) => x, oninput }) {
  const id = `slider-${count++}`,
    output = h("output", { for: id }, String(format(value)));
  const input = h("input", {
    type: "range",
    id,
    min,
    max,
    step,
    value,
    oninput: () => {
      output.textContent = format(Number(input.value));
      oninput(Number(input.value));
    },
  });
  return h("div.slider", {}, h("label", { for: id }, label), input, output);
}

/** A place for messages, which screen readers announce: say(text) and say("") to clear. */
export function messages() {
  const element = h("p.message", { role: "status", "aria-live": "polite", hidden: true });
  const say = (text, kind = "note") => {
    element.textContent = text;
    element.className = `message ${kind}`;
    element.hidden = !text;
  };
  return { element, say, fail: (error) => say(wording(error), "problem") };
}

/** Bars with labels and numbers: [[label, share in 0..1, number as text]]. */
export const bars = (items, chosen = -1) =>
  h(
    "ol.bars",
    {},
    ...items.map(([label, share, number], i) =>
      h(
        i === chosen ? "li.chosen" : "li",
        {},
        h("span.label", {}, label),
        h("span.track", { "aria-hidden": "true" }, filled(share)),
        h("span.number", {}, number),
      ),
    ),
  );

function filled(share) {
  const bar = h("span.bar");
  bar.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return bar;
}

const answered = new Set();
/** How long an answer of a model took. The first one takes longer: the browser compiles what it runs. */
export function took(name, ...milliseconds) {
  const isFirst = !answered.has(name);
  answered.add(name);
  const times = milliseconds.map((value) => value.toFixed(value < 100 ? 1 : 0)).join(" + ");
  return h("p.hint", {}, t(isFirst ? "took_first" : "took", times));
}

export const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

/** Words that can be chosen: `select` gets the number of one, or -1 for none. They are drawn anew afterwards. */
export function wordButtons(words, chosen, select, language, name = "words") {
  const choose = (i) => {
    select(i === chosen ? -1 : i);
    document.querySelector(`[data-words="${name}"] > :nth-child(${i + 1})`)?.focus();
  };
  return h(
    "div.words",
    { "data-words": name, lang: language },
    ...words.map((word, i) =>
      h(
        "button.word",
        { type: "button", "aria-pressed": String(i === chosen), onclick: () => choose(i) },
        word,
      ),
    ),
  );
}

/** A tensor between input and answer, which opens: its name, its shape, and what `build` shows of it. */
export function tensor(name, shape, explanation, build, { open = false } = {}) {
  const details = h(
    "details.tensor",
    { open },
    h("summary", {}, h("span", {}, name), h("code", {}, shape.join(" × "))),
  );
  details.addEventListener("toggle", async () => {
    if (!details.open || details.children.length > 1) return;
    const inside = h("div.inside", {}, h("p", {}, explanation));
    details.append(inside);
    inside.append(...[await build()].flat());
  });
  return details;
}

/** Tensors, of which those are open that were open before. */
export function flow(container, tensors) {
  const before = new Map(
    [...container.querySelectorAll("details")].map((details) => [
      details.querySelector("span").textContent,
      details.open,
    ]),
  );
  container.replaceChildren(h("h3", {}, t("inside")), h("p.hint", {}, t("inside_hint")), ...tensors);
  for (const details of tensors)
    details.open = before.get(details.querySelector("span").textContent) ?? details.open;
}

/** Buttons for a file and the camera. `onImage` gets an ImageBitmap. */
export function imageButtons(onImage, fail, { many = false } = {}) {
  const take = async (files) => {
    for (const file of files) {
      try {
        await onImage(await decode(file));
      } catch (error) {
        fail(error);
      }
    }
  };
  const input = h("input.visually-hidden", {
    type: "file",
    accept: "image/*",
    multiple: many,
    tabindex: "-1",
    "aria-label": t("choose_image"),
    onchange: () => {
      take([...input.files]);
      input.value = "";
    },
  });
  const file = h("button", { type: "button", onclick: () => input.click() }, t("choose_image"));
  const camera = h("button", { type: "button", onclick: () => photograph(onImage, fail).catch(fail) }, t("camera"));
  return { element: h("div.row", {}, input, file, camera), take };
}

/** Shows the camera in a dialog; `onImage` gets the photo. Throws "camera" or "permission". */
async function photograph(onImage, fail) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("camera");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(["NotAllowedError", "SecurityError"].includes(error.name) ? "permission_camera" : "camera");
  }
  const video = h("video", { autoplay: true, muted: true, playsinline: true, "aria-label": t("camera") });
  video.srcObject = stream;
  const dialog = h(
    "dialog",
    { "aria-label": t("camera") },
    video,
    h(
      "div.row",
      {},
      h(
        "button.primary",
        {
          type: "button",
          onclick: () =>
            createImageBitmap(video)
              .then(onImage)
              .catch(fail)
              .finally(() => dialog.close()),
        },
        t("take"),
      ),
      h("button", { type: "button", onclick: () => dialog.close() }, t("close")),
    ),
  );
  dialog.addEventListener("close", () => {
    stream.getTracks().forEach((track) => track.stop());
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
  await video.play();
}

/** Lets files be dropped on an element. */
export function accept(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
}
