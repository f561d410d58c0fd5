// Opens the page of `mmkeras page` in Chromium as a visitor does, and prints what it answers as JSON.
//
//     NODE_MODULES=folder node tests/page.mjs settings.json
//
// `settings`: {page: a folder to serve or a file, language, chromium, microphone: a WAV, inputs, scenarios}.
import fs from "fs";
import http from "http";
import { createRequire } from "module";
import path from "path";

const puppeteer = createRequire(path.join(process.env.NODE_MODULES, "_"))("puppeteer-core");
const settings = JSON.parse(fs.readFileSync(process.argv[2]));
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".wasm": "application/wasm",
};

const server = http.createServer((request, response) => {
  const file = path.join(settings.page, request.url.split("?")[0].replace(/\/$/, "/index.html"));
  response.setHeader("content-type", TYPES[path.extname(file)] ?? "application/octet-stream");
  fs.createReadStream(file)
    .on("error", () => {
      response.statusCode = 404;
      response.end();
    })
    .pipe(response);
});
const isFolder = fs.statSync(settings.page).isDirectory();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = isFolder ? `http://127.0.0.1:${server.address().port}` : "file://";
const address = isFolder ? `${origin}/?language=${settings.language}` : `file://${settings.page}`;

const browser = await puppeteer.launch({
  executablePath: settings.chromium,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-audio-capture=${settings.microphone}%noloop`,
    ...(settings.isRefused ? [] : ["--use-fake-ui-for-media-stream"]),
  ],
});
const console_ = [],
  requests = new Set();

/** A page that is ready, at a part. `before` runs in it first. */
async function open(part, before) {
  const page = await browser.newPage();
  page.on("console", (message) => console_.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => console_.push(`error: ${error.message}`));
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url())) requests.add(new URL(request.url()).origin);
  });
  if (before) await page.evaluateOnNewDocument(before);
  await page.goto(`${address}#${part}`);
  await page.waitForFunction(
    "document.querySelector('main') || !document.getElementById('start')?.textContent.startsWith('mmkeras')",
    { timeout: 120000 },
  );
  return page;
}

/** Answers of the models to all inputs, each with its time, through the page's own modules. */
async function answers({ images, prompts, clips, queries, texts }, language) {
  const [models, pictures, audio, vocabulary] = await Promise.all(
    ["models", "images", "audio", "vocabulary"].map((name) => import(`mmkeras/${name}.js`)),
  );
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const times = {},
    fastest = {};
  const each = async (name, values, answer) => {
    const all = [],
      spent = [];
    if (values.length) await answer(values[0]); // the browser compiles
    for (const value of values) {
      const started = performance.now();
      all.push(await answer(value));
      spent.push(performance.now() - started);
    }
    spent.sort((a, b) => a - b);
    [times[name], fastest[name]] = [spent[spent.length >> 1], spent[0]];
    return all;
  };
  const bitmaps = await Promise.all(images.map((image) => pictures.decode(new Blob([bytes(image)]))));
  const sounds = await Promise.all(clips.map((clip) => audio.decode(bytes(clip).buffer)));
  const size = 64,
    pixels = bitmaps.map((bitmap) => pictures.toPixels(bitmap, size)),
    cropped = bitmaps.map((bitmap) => pictures.toPixels(bitmap, size, true));
  const result = {
    pixels: pixels.map((values) => [...values]),
    captions: (await each("caption", pixels, (x) => models.caption(x, language))).map(({ text, novelty }) => ({
      text,
      novelty,
    })),
    attributes: (await each("attributes", cropped, models.attributes)).map(({ classes }) =>
      Object.fromEntries(Object.entries(classes).map(([name, { name: best }]) => [name, best])),
    ),
    drawn: (await each("draw", prompts, (prompt) => models.draw(prompt, 0, language))).map((drawn) => [
      ...drawn.pixels,
    ]),
    attention: (await each("attention", sounds, (x) => models.transcribe(x, "attention", language))).map(
      ({ text, times: spans }) => ({ text, spans }),
    ),
    ctc: (await each("ctc", sounds, (x) => models.transcribe(x, "ctc", language))).map(({ text }) => text),
    found: await each("search", queries, async (query) =>
      (await models.rank((await models.encodeText(query)).vector)).order.slice(0, 5),
    ),
    vectors: (await each("image vector", pixels, models.encodeImage)).map(({ vector }) => [...vector]),
    split: texts.map((text) => ["word", "character", "mixed"].map((unit) => vocabulary.split(text, unit))),
  };
  return { ...result, times, fastest };
}

const message = async (page) => {
  await page.waitForFunction(
    "[...document.querySelectorAll('.message, .start')].some((element) => !element.hidden && !/^(mmkeras .)?$/.test(element.textContent))",
    { timeout: 60000 },
  );
  return page.$$eval(".message, .start", (elements) =>
    elements
      .filter((element) => !element.hidden)
      .map((element) => element.textContent)
      .join(" "),
  );
};
const upload = async (page, file, number = 0) => (await page.$$("input[type=file]"))[number].uploadFile(file);
const write = async (page, selector, text) => {
  await page.waitForSelector(selector);
  await page.$eval(selector, (element) => {
    element.value = "";
  });
  await page.focus(selector);
  if (text) await page.type(selector, text);
  await page.keyboard.press("Enter");
};
const settled = (page) =>
  page.waitForFunction("document.querySelector('.answer, .results')?.children.length > 0", { timeout: 120000 });

/** How much wider than the window a page is, and what on it has neither text nor label. */
function inspect() {
  const hasName = (element) =>
    element.textContent.trim() ||
    element.getAttribute("aria-label") ||
    element.labels?.length ||
    element.closest("[aria-hidden=true]");
  const nameless = [...document.querySelectorAll("button, input, canvas, a")].filter((each) => !hasName(each));
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    nameless: nameless.map((element) => element.outerHTML.slice(0, 80)),
  };
}

const picture = (page, name) =>
  settings.screenshots &&
  page.screenshot({
    path: path.join(settings.screenshots, `${settings.language}-${name}.png`),
    fullPage: true,
  });

/** What a visitor does, and what the page then says. */
const SCENARIOS = {
  async microphone() {
    const page = await open("listen");
    await settled(page);
    await page.$$eval(".answer .text", (elements) =>
      elements.forEach((element) => {
        element.textContent = "";
      }),
    );
    await page.click(".record");
    await page.waitForFunction(
      "document.querySelectorAll('.answer .text').length === 2 && [...document.querySelectorAll('.answer .text')].every((element) => element.textContent)",
      { timeout: 60000 },
    );
    return page.$$eval(".answer .text", (elements) => elements.map((element) => element.textContent));
  },
  async noMicrophone() {
    const page = await open("listen", () =>
      Object.defineProperty(navigator, "mediaDevices", { value: undefined }),
    );
    await settled(page);
    await page.click(".record");
    return message(page);
  },
  async refused() {
    const page = await open("listen", () => {
      navigator.mediaDevices.getUserMedia = async () => {
        throw new DOMException("", "NotAllowedError");
      };
    });
    await settled(page);
    await page.click(".record");
    return message(page);
  },
  async noSimd() {
    return message(
      await open("describe", () => {
        WebAssembly.validate = () => false;
      }),
    );
  },
  async emptyPrompt() {
    const page = await open("draw");
    await settled(page);
    await write(page, "#prompt", "");
    return message(page);
  },
  async unknownPrompt() {
    const page = await open("draw");
    await settled(page);
    await write(page, "#prompt", "xylophone qwerty");
    return message(page);
  },
  async unknownQuery() {
    const page = await open("search");
    await settled(page);
    await write(page, "#query", "qwertz uiop");
    return message(page);
  },
  async noImage() {
    const page = await open("describe");
    await settled(page);
    await upload(page, settings.files.text);
    return message(page);
  },
  async largeImage() {
    const page = await open("describe");
    await settled(page);
    await upload(page, settings.files.large);
    await message(page); // it is unlike any in training
    return page.$eval(".answer .text", (element) => element.textContent);
  },
  async silence() {
    const page = await open("listen");
    await settled(page);
    await upload(page, settings.files.silence);
    return message(page);
  },
  async longClip() {
    const page = await open("listen");
    await settled(page);
    await upload(page, settings.files.long);
    return message(page);
  },
  async camera() {
    const page = await open("describe");
    await settled(page);
    const [before, button] = [await page.$(".answer .text"), (await page.$$(".card .row button"))[1]];
    await button.click();
    await page.waitForFunction("document.querySelector('dialog video')?.videoWidth > 0");
    await page.click("dialog .primary");
    await page.waitForFunction((old) => !old.isConnected && !document.querySelector("dialog"), {}, before);
    return message(page); // what the camera plays is unlike any in training
  },
  async oneExample() {
    const page = await open("teach");
    await upload(page, settings.files.images[0], 0);
    return message(page);
  },
  async teach() {
    const page = await open("teach"),
      { images } = settings.files;
    for (const [thing, file] of [
      [0, images[0]],
      [1, images[1]],
      [2, images[2]],
    ]) {
      await upload(page, file, thing);
      await page.waitForFunction(
        (count) => document.querySelectorAll(".examples .thumbnail").length === count,
        {},
        thing + 1,
      );
    }
    const found = [];
    for (const file of images.slice(3)) {
      await page.$$eval(".answer", ([answer]) => answer.replaceChildren());
      await upload(page, file, 3);
      await page.waitForFunction("document.querySelector('.answer .text')");
      found.push(await page.$eval(".answer .text", (element) => element.textContent));
    }
    return found;
  },
  /** Screenshots of a visit, 000.png and so on: → [milliseconds that each is shown]. */
  async tour() {
    const shown = [],
      page = await open("describe");
    await page.setViewport({ width: 800, height: 700 });
    const keep = async (milliseconds) => {
      const name = `${String(shown.push(milliseconds) - 1).padStart(3, "0")}.png`;
      await page.screenshot({ path: path.join(settings.screenshots, name) });
    };
    const choose = (selector, i) => page.$$eval(selector, (all, at) => all[at].click(), i);
    await settled(page);
    await keep(1200);
    for (let i = 0; i < (await page.$$(".answer .word")).length - 1; i++) {
      await choose(".answer .word", i);
      await keep(450);
    }
    await choose(".tab", 1);
    await settled(page);
    await keep(800);
    for (let noise = 0.5; noise <= 4; noise += 0.5) {
      const before = await page.$(".shown canvas");
      await page.$eval("input[type=range]", (slider, value) => {
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
      }, noise);
      await page.waitForFunction((old) => !old.isConnected, {}, before);
      await keep(noise < 4 ? 150 : 1000);
    }
    await choose(".tab", 2);
    await settled(page);
    await page.$eval(".inside-model", (inside) => scrollTo(0, inside.offsetTop + 270));
    await keep(2500);
    await choose(".tab", 3);
    await settled(page);
    await page.evaluate(() => scrollTo(0, 0));
    await keep(1200);
    await choose(".chip", 4);
    await page.waitForFunction(() => document.querySelector("#query").value === document.querySelector(".result span").textContent);
    await keep(2000);
    return shown;
  },
  /** Tab, arrow keys and Enter alone: from part to part, a word of the caption, a tensor. */
  async keyboard() {
    const page = await open("describe");
    await settled(page);
    await page.focus(".tab[aria-selected=true]");
    const parts = [];
    for (let i = 0; i < 6; i++) {
      await page.keyboard.press("ArrowRight");
      parts.push(await page.$eval("[role=tab][aria-selected=true]", (tab) => tab.id));
    }
    await settled(page);
    const reach = async (selector) => {
      for (let i = 0; i < 60; i++) {
        if (await page.evaluate((wanted) => document.activeElement.matches(wanted), selector))
          return page.keyboard.press("Enter");
        await page.keyboard.press("Tab");
      }
      throw new Error(`no way by Tab to ${selector}`);
    };
    await reach(".answer .word");
    const isChosen = await page.$eval(
      ".answer .word[aria-pressed=true]",
      (word) => word === document.activeElement,
    );
    await reach("details:not([open]) > summary");
    await page.waitForSelector("details[open] .inside");
    return { parts, isChosen };
  },
  /** Each part at two widths: whether something is wider than the page, and what lacks a name. */
  async layout() {
    const found = [];
    for (const part of ["describe", "draw", "listen", "search", "teach", "about"]) {
      const page = await open(part);
      if (!["teach", "about"].includes(part)) await settled(page);
      for (const width of [390, 1280]) {
        await page.setViewport({ width, height: 900 });
        await page.emulateMediaFeatures([
          { name: "prefers-color-scheme", value: width === 390 ? "dark" : "light" },
        ]);
        await picture(page, `${part}-${width}`);
        await page.$$eval("details", (all) => all.forEach((each) => each.setAttribute("open", "")));
        await page.waitForFunction(
          "[...document.querySelectorAll('details')].every((each) => each.querySelector('.inside > :nth-child(2)'))",
        );
        await picture(page, `${part}-${width}-open`);
        found.push({ part, width, ...(await page.evaluate(inspect)) });
        await page.$$eval("details", (all) => all.forEach((each) => each.removeAttribute("open")));
      }
    }
    return found;
  },
};

const output = {};
try {
  if (settings.inputs) {
    const page = await open("about");
    if (settings.isOffline) {
      // once its files are there, it needs no network
      await page.evaluate(answers, settings.inputs, settings.language);
      await page.setOfflineMode(true);
    }
    output.answers = await page.evaluate(answers, settings.inputs, settings.language);
    await page.close();
  }
  for (const name of settings.scenarios ?? []) {
    try {
      output[name] = await SCENARIOS[name]();
    } catch (error) {
      output[name] = `failed: ${error.message}`;
    }
    for (const page of (await browser.pages()).slice(1)) await page.close();
  }
} finally {
  await browser.close();
  server.close();
}
process.stdout.write(JSON.stringify({ ...output, console: console_, requests: [...requests], origin }));
