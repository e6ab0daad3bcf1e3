// Pages of events that the hub rendered: node rendered.mjs ORIGIN COUNT
//
// Events with the data 0, 1, 2, … come on the topic `numbers` all the while; each page has to show them in order, without
// one missing or twice, whenever it was opened, and after going back to it. Ends with 0 if all was well.

import assert from "node:assert/strict";
import { finish, launch } from "./browser.mjs";

const [origin, count] = [process.argv[2], Number(process.argv[3])];
const url = `${origin}/topics/numbers?limit=1000`;
const browser = await launch();
const context = await browser.newContext();
context.setDefaultTimeout(60_000);
const complaints = [];

async function open(address) {
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) complaints.push(message.text());
  });
  await page.goto(address);
  return page;
}

/** The numbers on a page, the oldest first. */
const shown = (page) =>
  page.evaluate(() => [...document.querySelectorAll(".row .data")].map((data) => Number(data.textContent)).reverse());

/** Waits until the page shows that number and all before it, from its first on, each once. */
async function complete(page, last) {
  await page.waitForFunction(
    (last) => Number(document.querySelector(".row .data")?.textContent) >= last,
    last,
  );
  const numbers = await shown(page);
  numbers.forEach((number, at) => assert.equal(number, numbers[0] + at, `after ${numbers.slice(0, at).slice(-3)}`));
  return numbers;
}

// Without scripts it is complete at load.
const plain = await browser.newContext({ javaScriptEnabled: false });
const still = await plain.newPage();
await still.goto(url);
const rendered = await still.locator(".row .data").allTextContents();
assert.ok(rendered.length > 0);
assert.equal(Number(rendered.at(-1)), 0);
await plain.close();

// Pages opened while events come.
let newest = rendered.length;
for (let n = 0; n < count; n += 1) {
  const page = await open(url);
  const numbers = await complete(page, newest + 20);
  newest = numbers.at(-1);
  if (n < count - 1) await page.close();
  else await goBack(page);
}

/** Away and back again: whether the browser kept the page or renders it anew, nothing is missing. */
async function goBack(page) {
  await page.evaluate(() => (window.kept = true));
  await page.goto(`${origin}/problems/`);
  await page.goBack();
  await complete(page, newest + 20);
  // A page that was kept: its stream was closed when it was left, and is opened again.
  const before = (await shown(page)).at(-1);
  await page.evaluate(() => {
    dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
  });
  await page.waitForTimeout(300);
  const left = (await shown(page)).at(-1);
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
  const after = await complete(page, Math.max(before, left) + 20);
  newest = after.at(-1);
  await lookAway(page);
}

/** A page that nobody looks at has no stream, and misses nothing by that. */
async function lookAway(page) {
  const look = (away) => page.evaluate((away) => {
    Object.defineProperty(document, "hidden", { configurable: true, value: away });
    document.dispatchEvent(new Event("visibilitychange"));
  }, away);
  await look(true);
  await page.waitForTimeout(300);
  const left = (await shown(page)).at(-1);
  await page.waitForTimeout(300);
  assert.equal((await shown(page)).at(-1), left);
  await look(false);
  newest = (await complete(page, left + 20)).at(-1);
}

assert.deepEqual(complaints, []);
await finish(browser);
