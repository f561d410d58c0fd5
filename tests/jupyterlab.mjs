// Opens each notebook in JupyterLab as a reader does, with Restart & Run All, and prints what is seen as JSON.
//
//     NODE_MODULES=folder node tests/jupyterlab.mjs settings.json
//
// `settings`: {address, of JupyterLab; token; notebooks: names; chromium; screenshots: a folder; theme}.
import fs from "fs";
import { createRequire } from "module";
import path from "path";

const puppeteer = createRequire(path.join(process.env.NODE_MODULES, "_"))("puppeteer-core");
const settings = JSON.parse(fs.readFileSync(process.argv[2]));

const browser = await puppeteer.launch({
  executablePath: settings.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
  defaultViewport: { width: 1280, height: 900 },
  protocolTimeout: 900000,
});

async function run(name) {
  const page = await browser.newPage();
  await page.goto(`${settings.address}/lab/tree/${name}?reset&token=${settings.token}`);
  await page.waitForSelector(".jp-Notebook .jp-CodeCell", { timeout: 120000 });
  let confirm = null;
  while (!confirm) {
    // does nothing while the kernel starts
    await page.click('[data-command="notebook:restart-run-all"]');
    confirm = await page.waitForSelector(".jp-Dialog .jp-mod-accept", { timeout: 5000 }).catch(() => null);
  }
  await confirm.click();
  const cells = () => [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")];
  await page.evaluate(`window.cells = ${cells}`);
  await page.waitForFunction(
    () => {
      const prompts = window.cells().map((cell) => cell.querySelector(".jp-InputPrompt").textContent);
      const failed = document.querySelector('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]');
      return failed || prompts.every((prompt) => /^\[\d+\]/.test(prompt));
    },
    { timeout: 900000, polling: 1000 },
  );
  const seen = await page.evaluate(() => {
    const texts = (type) =>
      [...document.querySelectorAll(`.jp-Notebook [data-mime-type="application/vnd.jupyter.${type}"]`)].map(
        (element) => element.textContent,
      );
    const images = [...document.querySelectorAll(".jp-Notebook img")];
    return {
      cells: window.cells().length,
      errors: texts("error"),
      stderr: texts("stderr"),
      images: images.length,
      broken: images.filter((image) => !image.complete || !image.naturalWidth).length,
    };
  });
  const height = await page.$eval(".jp-WindowedPanel-outer", (notebook) => notebook.scrollHeight);
  await page.setViewport({ width: 1280, height: 2100 });
  for (let i = 0; 2000 * i < height; i++) {
    await page.evaluate((top) => document.querySelector(".jp-WindowedPanel-outer").scrollTo(0, top), i * 2000);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const file = `${path.basename(name, ".ipynb")}-${settings.theme}-${String(i).padStart(2, "0")}.png`;
    await page.screenshot({ path: path.join(settings.screenshots, file) });
  }
  await page.close();
  return seen;
}

const answers = {};
for (const name of settings.notebooks) answers[name] = await run(name);
await browser.close();
console.log(JSON.stringify(answers));
