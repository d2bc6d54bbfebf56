// The page at PROMPTGEN_URL in headless Chromium (PROMPTGEN_CHROMIUM), driven
// as a person would: type, choose, go back, stop; on a phone, in Chinese, dark.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const url = process.env.PROMPTGEN_URL;
let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.PROMPTGEN_CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});
after(() => browser.close());

// open shows the page and notes everything that goes wrong or outside.
async function open(options = {}) {
  const context = await browser.newContext({ locale: "en-US", ...options });
  const page = await context.newPage();
  page.wrong = [];
  page.on("pageerror", err => page.wrong.push(String(err)));
  page.on("console", m => m.type() === "error" && page.wrong.push(m.text()));
  page.on("request", r => new URL(r.url()).origin === new URL(url).origin || r.url().startsWith("data:") || page.wrong.push("asks outside: " + r.url()));
  await page.goto(url);
  await page.locator("summary").click();
  await page.fill("#key", process.env.PROMPTGEN_KEY);
  return page;
}

const finished = page => page.waitForSelector("#pick:not([hidden])");

test("suggest, go on from one, go back", async () => {
  const page = await open();
  await page.fill("#context", "高血压");
  await page.fill("#samples", "3");
  await page.fill("#maxlength", "12");
  await page.click("#go");
  await finished(page);
  const cards = page.locator("#texts button");
  assert.equal(await cards.count(), 3);
  const chosen = await cards.nth(1).textContent();
  assert.ok(chosen.startsWith("高血压") && chosen.length > 3, chosen);
  assert.match(await page.textContent("#status"), /^[\d.]+ tokens\/s$/);
  await cards.nth(1).click();
  await finished(page);
  assert.equal(await page.inputValue("#context"), chosen);
  assert.ok((await cards.first().textContent()).startsWith(chosen));
  await page.click("#undo");
  assert.equal(await page.inputValue("#context"), "高血压");
  assert.deepEqual(page.wrong, []);
});

test("the same seed writes the same", async () => {
  const page = await open();
  await page.fill("#context", "多喝水");
  await page.fill("#seed", "7");
  const texts = [];
  for (let i = 0; i < 2; i++) {
    await page.click("#go");
    await finished(page);
    texts.push(await page.locator("#texts").textContent());
  }
  assert.equal(texts[0], texts[1]);
});

test("text appears as it is written, and stops when told", async () => {
  const page = await open();
  await page.fill("#context", "高");
  await page.fill("#maxlength", "1000000");
  await page.click("#go");
  await page.waitForFunction(() => document.querySelector("#texts .was + span")?.textContent.length > 20);
  assert.equal(await page.textContent("#go"), "Stop");
  await page.click("#go");
  await page.waitForFunction(() => document.querySelector("#go").textContent === "Suggest");
  assert.deepEqual(page.wrong, []);
});

test("what goes wrong is said", async () => {
  const page = await open();
  await page.click("#go");
  assert.equal(await page.textContent("#status"), "Type something first");
  await page.fill("#context", "高");
  await page.fill("#key", "wrong");
  await page.click("#go");
  await page.waitForSelector("#status.bad");
  assert.match(await page.textContent("#status"), /^Failed: .*key/);
});

test("a prompt is text, not markup", async () => {
  const page = await open();
  await page.fill("#context", "<img src=x onerror=alert(1)>高");
  await page.click("#go");
  await finished(page);
  assert.equal(await page.locator("#texts img").count(), 0);
  assert.ok((await page.locator("#texts button").first().textContent()).startsWith("<img src=x onerror=alert(1)>高"));
});

test("a phone, in Chinese, dark", async () => {
  const page = await open({ locale: "zh-CN", colorScheme: "dark", viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true });
  assert.equal(await page.textContent("#go"), "续写");
  await page.fill("#context", "高血压要注意");
  await page.tap("#go");
  await finished(page);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 360, `the page is ${wide} pixels wide`);
  for (const id of ["#go", "#lang"]) assert.ok((await page.locator(id).boundingBox()).height >= 40, id + " is too small for a thumb");
  if (process.env.PROMPTGEN_SHOT) await page.screenshot({ path: process.env.PROMPTGEN_SHOT, fullPage: true });
  await page.tap("#lang");
  assert.equal(await page.textContent("#go"), "Suggest");
  assert.deepEqual(page.wrong, []);
});
