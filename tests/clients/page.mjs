// A newcomer's walk over the hub's own page: node page.mjs ORIGIN
//
// Prints {"open": true} when the hub's log is to be wiped and the hub started again, then goes on to
// the gap that the page has to show; ends with 0 if all was well.

import assert from "node:assert/strict";
import { finish, launch } from "./browser.mjs";

const origin = process.argv[2];
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 390, height: 844 } });
context.setDefaultTimeout(90_000);
const complaints = [];

async function open(address, prepare = () => {}) {
  const page = await context.newPage();
  await prepare(page);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // Refused requests and lost connections are part of the walk; Chromium logs them by itself.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) {
      complaints.push(message.text());
    }
  });
  await page.goto(address);
  return page;
}

const live = (page) => page.waitForSelector("#state[data-state=open]");
const published = (page, kind) => page.waitForSelector(`#published.${kind}`).then((found) => found.textContent());

// It opens on the topic `demo`, and what is published there shows, markup as text.
const page = await open(`${origin}/`);
await live(page);
await page.fill("#data", '{"markup":"<img src=x onerror=alert(1)>","number":1.0}');
await page.fill("#event", "greeting");
await page.click("#publish button");
const id = (await published(page, "stored")).replace("Stored as ", "");
const row = page.locator(".row", { hasText: id });
await row.waitFor();
assert.equal(await row.locator(".topic").textContent(), "demo");
assert.equal(await row.locator(".chip").textContent(), "greeting");
assert.equal(
  await row.locator(".data").textContent(),
  '{"markup": "<img src=x onerror=alert(1)>", "number": 1.0}',
);
assert.equal(await page.locator(".rows img").count(), 0);
assert.equal(await page.textContent("#last-id"), id);
assert.match(await page.textContent("#curl-subscribe"), new RegExp(`^curl -N ${origin}/topics/demo$`));

// A refusal is shown in words.
await page.fill("#event", "");
await page.fill("#topic", "tidings.mine");
await page.click("#publish button");
assert.ok((await published(page, "problem")).length > 10);

// What is watched is in the address: a link to it shows the same elsewhere.
await page.fill("#topics", "demo, walk/**");
await page.click("#watch button");
await page.waitForURL((url) => url.hash === "#topic=demo&topic=walk/**");
await live(page);
await page.fill("#topic", "walk/a/b");
await page.fill("#data", "on a walk");
await page.click("#publish button");
await page.locator(".row", { hasText: "on a walk" }).waitFor();
const second = await open(page.url());
await second.locator(".row", { hasText: "on a walk" }).waitFor();
await second.locator(".row", { hasText: "greeting" }).waitFor();
await second.close();

// Pausing holds rows back, and loses none.
await page.click("#pause");
await page.fill("#data", "while paused");
await page.click("#publish button");
await page.locator("#pause", { hasText: "1 new" }).waitFor();
assert.equal(await page.locator(".row", { hasText: "while paused" }).count(), 0);
await page.click("#pause");
await page.locator(".row", { hasText: "while paused" }).waitFor();

// A pattern that cannot be is refused with the hub's words, and the page does not try again.
await page.fill("#topics", "a/**/b");
await page.click("#watch button");
await page.waitForSelector("#state[data-state=refused]");
assert.ok((await page.textContent("#refused")).length > 10);

// Nothing is wider than a phone.
await page.goto(`${origin}/#topic=demo`);
await live(page);
assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);

// A hub that is alone shows no cluster. One that is not shows its nodes, markup as text, and still fits a phone.
assert.equal(await page.isHidden("#cluster"), true);
const bold = { id: "<b>0123</b>", address: "<b>10.0.0.1</b>:8080", version: "0.1.0", position: "7", lag_entries: 0, streams: 2 };
const cluster = { journal: "redis://broker:6379", linked: true, nodes: [bold, { ...bold, address: `${"x".repeat(80)}:8080` }] };
const several = await open(`${origin}/`, (page) => page.route("**/cluster", (route) => route.fulfill({ json: cluster })));
await several.locator(".node", { hasText: "<b>10.0.0.1</b>:8080" }).waitFor();
assert.match(await several.locator(".node .chip").locator("..").textContent(), /^<b>10\.0\.0\.1.*this one/);
assert.equal(await several.locator(".node b").count(), 0);
assert.equal(await several.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);
await several.close();

// Another log under the same address: the page says that there is a gap.
console.log(JSON.stringify({ open: true }));
await page.waitForSelector(".note.gap");
await live(page);
await page.fill("#data", "after the gap");
await page.click("#publish button");
await page.locator(".row", { hasText: "after the gap" }).waitFor();

assert.deepEqual(complaints, []);
await finish(browser);
