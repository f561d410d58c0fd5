// Starts the page: its parts as tabs, the language and the theme.
import { facts, readFacts } from "mmkeras/models.js";
import { h } from "mmkeras/ui.js";
import { language, languageNames, setLanguage, t } from "mmkeras/texts.js";
import * as describe from "mmkeras/describe.js";
import * as draw from "mmkeras/draw.js";
import * as listen from "mmkeras/listen.js";
import * as search from "mmkeras/search.js";
import * as teach from "mmkeras/teach.js";
import * as about from "mmkeras/about.js";

const PARTS = { describe, draw, listen, search, teach, about };
let current = "describe";

export async function start() {
  await readFacts();
  const wanted = new URLSearchParams(location.search).get("language") ?? navigator.language.slice(0, 2);
  setLanguage(facts.languages.includes(wanted) ? wanted : facts.languages[0]);
  if (location.hash.slice(1) in PARTS) current = location.hash.slice(1);
  show();
  addEventListener(
    "hashchange",
    () =>
      location.hash.slice(1) in PARTS && location.hash.slice(1) !== current && select(location.hash.slice(1)),
  );
}

function show() {
  document.documentElement.lang = language() === "zh" ? "zh-Hans" : "en";
  document.title = t("title");
  const tabs = Object.keys(PARTS).map((name) =>
    h(
      "button.tab",
      {
        type: "button",
        role: "tab",
        id: `tab-${name}`,
        "aria-controls": "panel",
        "aria-selected": String(name === current),
        tabindex: name === current ? "0" : "-1",
        onclick: () => select(name),
      },
      t(name),
    ),
  );
  const tablist = h("div.tabs", { role: "tablist", "aria-label": t("parts"), onkeydown: move }, ...tabs);
  const panel = h(
    "main",
    { id: "panel", role: "tabpanel", "aria-labelledby": `tab-${current}` },
    h("p.lead", {}, t(`${current}_lead`, facts.emoji.names.length)),
    PARTS[current].build(),
  );
  document
    .getElementById("page")
    .replaceChildren(header(), tablist, panel, h("footer", {}, h("p", {}, t("footer", facts.version))));
}

function select(name) {
  current = name;
  history.replaceState(null, "", `#${name}`);
  show();
  document.getElementById(`tab-${name}`).focus();
}

/** The arrow keys, Home and End go from tab to tab. */
function move(event) {
  const names = Object.keys(PARTS),
    i = names.indexOf(current);
  const to = { ArrowRight: i + 1, ArrowLeft: i - 1 + names.length, Home: 0, End: names.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  select(names[to % names.length]);
}

function header() {
  const languages = Object.keys(
    facts.siblings ?? Object.fromEntries(facts.languages.map((name) => [name, ""])),
  );
  const choices = languages.map((name) => {
    const properties = {
      lang: name === "zh" ? "zh-Hans" : "en",
      "aria-current": name === language() ? "true" : null,
    };
    if (facts.siblings && name !== language())
      return h("a.choice", { href: facts.siblings[name], ...properties }, languageNames[name]);
    return h(
      "button.choice",
      {
        type: "button",
        ...properties,
        onclick: () => {
          setLanguage(name);
          show();
          document.querySelector(".choice[aria-current]").focus();
        },
      },
      languageNames[name],
    );
  });
  const root = document.documentElement;
  const isDark = () =>
    (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const theme = h(
    "button.choice",
    {
      type: "button",
      onclick: () => {
        root.dataset.theme = isDark() ? "light" : "dark";
        theme.textContent = t(isDark() ? "light" : "dark");
      },
    },
    t(isDark() ? "light" : "dark"),
  );
  matchMedia("(prefers-color-scheme: dark)").onchange = () =>
    (theme.textContent = t(isDark() ? "light" : "dark"));
  return h(
    "header",
    {},
    h("div", {}, h("h1", {}, "mmkeras"), h("p", {}, t("tagline"))),
    h("nav", { "aria-label": t("settings") }, ...choices, theme),
  );
}
