// The pages of examples/dashboard: node dashboard.mjs ORIGIN
//
// Orders change all the while. A page without scripts has to show what the log said up to its cursor; one with scripts, what
// the server says in the end, whichever way it got its first table. Half-way it asks for the server to be killed and started
// again. Ends with 0 if all was well.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { finish, launch } from "./browser.mjs";

const [origin] = process.argv.slice(2);
const STATUSES = ["new", "packed", "shipped", "delivered"];
/** Pages of each kind, opened one after the other. */
const PAGES = 4;

const browser = await launch();
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const context = await browser.newContext();
const plain = await browser.newContext({ javaScriptEnabled: false });
const complaints = [];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const pick = (list) => list[Math.floor(Math.random() * list.length)];
const json = async (path) => (await fetch(origin + path)).json();

async function open(context, path) {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !/Failed to load resource|net::ERR/.test(message.text())) complaints.push(message.text());
  });
  await page.goto(origin + path);
  return page;
}

/** A page's table, as one text per row. Without scripts there it is read from the markup. */
const CELLS = "#orders > tr > :not(:last-child)";
async function shown(page) {
  const cells = await page.locator(CELLS).allTextContents();
  return Array.from({ length: cells.length / 4 }, (_, n) => cells.slice(4 * n, 4 * n + 4).join(" "));
}
const line = ({ id, customer, total, status }) => `${id} ${customer} ${total} ${status}`;

// ---- Changes ----

let going = true;
let changes = 0;
let next = 100;

async function change() {
  while (going) {
    const order = { id: next++, customer: `<b>${next}</b> & Sons`, total: "1.00", status: "new" };
    const [path, body] = Math.random() < 0.05 && next < 110
      ? [`/topics/orders/${order.id}`, JSON.stringify(order)] // a new one, by the hub's own route
      : [`/orders/${pick([1, 2, 3, 4, 5, 6, 7, 8])}`, `status=${pick(STATUSES)}`];
    const answer = await fetch(origin + path, { method: "POST", body, redirect: "manual" }).catch(() => undefined);
    if (answer && [201, 303].includes(answer.status)) changes += 1;
    else await sleep(50);
    await sleep(25);
  }
}

/** The table as the log has it up to a cursor. */
async function folded(cursor) {
  const { events, more } = await json("/events?topic=orders/*&since=earliest&format=json&limit=1000");
  assert.equal(more, false);
  const place = (id) => BigInt(id.split("-")[1]);
  const orders = new Map();
  for (const { id, topic, data } of events) {
    if (place(id) > place(cursor)) break;
    const order = parsed(data);
    if (order && topic === `orders/${order.id}`) orders.set(order.id, order);
  }
  return [...orders.values()].sort((a, b) => b.id - a.id).map(line);
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {}
}

const changing = [change(), change()];
await fetch(`${origin}/topics/orders/rubbish`, { method: "POST", body: "no order" });
await fetch(`${origin}/topics/orders/1`, { method: "POST", body: '{"id":1,"customer":"x","total":"1.00","status":"lost"}' });
await fetch(`${origin}/topics/orders/99`, { method: "POST", body: '[99,"x","1.00","new"]' });

// ---- Pages, opened meanwhile ----

const pages = [];
const seen = new Set();
for (let n = 0; n < PAGES; n += 1) {
  pages.push(await open(context, "/"));
  if (n === 0) pages.push(await open(await browser.newContext(), "/ajax"));
  const still = await open(plain, "/");
  const cursor = await still.locator("body").getAttribute("data-cursor");
  seen.add(cursor);
  const rows = await shown(still);
  assert.ok(rows.length >= 8);
  assert.deepEqual(rows, await folded(cursor));
  await still.close();
}
assert.equal(seen.size, PAGES, "nothing changed between the pages");

console.log(JSON.stringify({ id: "", event: "ask", data: "kill" }));
await input.next();
const before = changes;
pages.push(await open(await browser.newContext(), "/ajax"));
while (changes < before + 50) await sleep(50);
going = false;
await Promise.all(changing);

// ---- In the end ----

async function settled(page) {
  for (let tries = 0; ; tries += 1) {
    const expected = (await json("/orders")).orders.map(line);
    const rows = await shown(page);
    if (tries === 300 || JSON.stringify(rows) === JSON.stringify(expected)) return assert.deepEqual(rows, expected, page.url());
    await sleep(100);
  }
}

for (const page of pages) await settled(page);
const counts = await Promise.all(pages.map((page) => page.locator("#count").textContent()));
const still = await open(plain, "/");
await settled(still);
assert.deepEqual(new Set(counts), new Set([await still.locator("#count").textContent()]));

// A button changes the order everywhere, and without scripts it is a form.
const press = async (page, word) => {
  const row = page.locator("#orders tr", { has: page.getByRole("button", { name: word }) }).first();
  const id = await row.getAttribute("data-id");
  await row.getByRole("button").click();
  return id;
};
for (const [id, status] of [[1, "new"], [2, "packed"]]) {
  await fetch(`${origin}/orders/${id}`, { method: "POST", body: `status=${status}` });
}
for (const page of pages) await settled(page);
await still.reload();
const packed = await press(pages[0], "Pack");
await pages[0].waitForSelector(`[data-id="${packed}"] .packed`);
await still.reload();
const shipped = await press(still, "Ship");
await still.waitForSelector(`[data-id="${shipped}"] .shipped`);
for (const page of [...pages, still]) await settled(page);

// Not by a page elsewhere.
const from = async (headers) =>
  (await fetch(`${origin}/orders/1`, { method: "POST", body: "status=new", redirect: "manual", headers })).status;
assert.equal(await from({ "Sec-Fetch-Site": "cross-site" }), 403);
for (const other of ["http://elsewhere.test", "null", "http://127.0.0.1"]) assert.equal(await from({ Origin: other }), 403);
assert.equal(await from({ Origin: origin }), 303);
assert.deepEqual(complaints, []);
await finish(browser);
