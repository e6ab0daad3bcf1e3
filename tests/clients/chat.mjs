// The chat of examples/chat on two nodes behind nginx: node chat.mjs PROXY NODE1 NODE2
//
// Pages in several browsers, spread over both nodes, talk all the while. It asks for the first node to be killed and to be
// started again, with a line of JSON each, and goes on once a line comes. Ends with 0 if no message was lost, doubled or
// out of order, for anybody.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { finish, launch } from "./browser.mjs";

const [proxy, ...nodes] = process.argv.slice(2);
const ROOM = "chat/lobby";
const MARKUP = "<img src=x onerror=alert(1)> & </script>";
/** Messages of a page in each of four rounds. */
const EACH = 8;
/** A page of the chat keeps 500 messages: enough for so many, and for what is said beside the rounds. */
const PAGES_MAX = 12;

const browser = await launch();
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const complaints = [];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function ask(data) {
  console.log(JSON.stringify({ id: "", event: "ask", data }));
  await input.next();
}

// ---- Pages ----

async function open(context, origin) {
  const page = await context.newPage();
  page.setDefaultTimeout(90_000);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("dialog", (dialog) => complaints.push(dialog.message()));
  page.on("console", (message) => {
    if (message.type() === "error" && !/Failed to load resource|net::ERR/.test(message.text())) complaints.push(message.text());
  });
  await page.goto(origin);
  return page;
}

const live = (page) => page.waitForSelector('#state[data-state="open"]');
const shown = (page) => page.locator("#messages .text").allTextContents();
const shows = (page, text) =>
  page.waitForFunction((text) => [...document.querySelectorAll("#messages .text")].some((said) => said.textContent === text), text);

/** As if somebody had typed it, which takes a driver much longer. */
const say = (page, ...words) =>
  page.evaluate(([name, text]) => {
    const form = document.forms[0];
    form.from.value = name;
    form.text.value = text;
    form.requestSubmit();
  }, words);

/** Streams that a node serves, as it tells the others. */
async function streams(node) {
  const { nodes: known } = await (await fetch(`${nodes[1]}/cluster`)).json();
  return known.find(({ address }) => node.endsWith(address))?.streams ?? 0;
}

// Each browser has one connection for all its tabs, and nginx takes turns with all requests: more browsers, and odd requests
// between them, until some are on either node.
const context = await browser.newContext();
const pages = [await open(context, proxy), await open(context, proxy)];
while (pages.length < 4 || !(await streams(nodes[0])) || !(await streams(nodes[1]))) {
  assert.ok(pages.length < PAGES_MAX, "nginx sends nobody to one of the nodes");
  if (Math.random() < 0.5) await fetch(`${proxy}/healthz`);
  pages.push(await open(await browser.newContext(), proxy));
  await Promise.all(pages.map(live));
  await sleep(1500); // a node tells of its streams once a second
}
pages.push(await open(await browser.newContext(), nodes[1]));
await live(pages.at(-1));

// ---- They talk ----

const said = pages.map(() => 0);
async function talk() {
  await Promise.all(pages.map(async (page, n) => {
    for (let k = 0; k < EACH; k += 1) {
      await say(page, `page ${n}`, `${n}: ${said[n]++}`);
      await sleep(150 * Math.random());
    }
  }));
}

await talk();
const meanwhile = talk();
await sleep(500);
const late = await open(await browser.newContext(), proxy); // in the middle of it all
await ask("kill");
await meanwhile;
await talk();
await say(pages[0], "page 0", MARKUP);
for (const page of pages) await page.waitForSelector("#outbox:empty", { state: "attached" });
await say(pages[0], "page 0", "while it is away");
for (const page of pages) await shows(page, "while it is away");
await ask("start");
await talk();
for (const page of pages) await page.waitForSelector("#outbox:empty", { state: "attached" });
await say(pages.at(-1), "the last", "the end");
for (const page of pages) await shows(page, "the end");

async function log(node) {
  const answer = await fetch(`${node}/topics/${ROOM}?since=earliest&limit=1000&format=json`);
  const { events, more } = await answer.json();
  assert.equal(more, false);
  return events.map(({ data }) => JSON.parse(data).text);
}

const all = await log(nodes[1]);
assert.equal(all.length, said.reduce((sum, count) => sum + count) + 3);
assert.deepEqual(await log(nodes[0]), all);
for (const page of pages) assert.deepEqual(await shown(page), all);
await shows(late, "the end");
const since = await shown(late);
assert.ok(since.length > 3 * EACH);
assert.deepEqual(since, all.slice(-since.length));
for (const [n, count] of said.entries()) {
  const own = all.filter((text) => text.startsWith(`${n}: `));
  assert.deepEqual(own, Array.from({ length: count }, (_, k) => `${n}: ${k}`));
}
assert.ok(all.includes(MARKUP));

// Without scripts, and loaded anew: the last fifty.
for (const javaScriptEnabled of [false, true]) {
  const page = await open(await browser.newContext({ javaScriptEnabled }), proxy);
  assert.deepEqual(await shown(page), all.slice(-50));
  await page.close();
}

// ---- Other ways into the same room ----

/** What is heard until somebody says that. */
const heard = (lines, end) =>
  new Promise((resolve, reject) => {
    const texts = [];
    lines((text) => {
      texts.push(text);
      if (text === end) resolve(texts);
    });
    setTimeout(() => reject(new Error(`no ${end}: ${texts}`)), 60_000).unref();
  });

const url = `${proxy}/topics/${ROOM}`;
const curl = spawn("curl", ["-sSN", "--noproxy", "*", "-H", "Accept: text/event-stream", url]);
const socket = new WebSocket(`${proxy.replace("http", "ws")}/ws?topic=${ROOM}`, "tidings.v1");
const client = io(proxy, { auth: { topics: [ROOM] } });
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const python = spawn(here("venv/bin/python"), [here("socketio.py"), proxy, "polling", ROOM]);
const pythons = createInterface({ input: python.stdout });
await Promise.all([
  new Promise((resolve) => client.once("connect", resolve)),
  new Promise((resolve) => pythons.on("line", (line) => JSON.parse(line).connected && resolve())),
  new Promise((resolve) => curl.stdout.once("data", resolve)),
  new Promise((resolve, reject) => socket.once("message", resolve).once("error", reject)),
]);
const ways = {
  curl: heard((take) => {
    createInterface({ input: curl.stdout }).on("line", (line) => line.startsWith("data: ") && take(line.slice(6)));
  }, "over"),
  socket: heard((take) => {
    socket.on("message", (message) => JSON.parse(message).events?.forEach(({ data }) => take(data)));
  }, "over"),
  "Socket.IO": heard((take) => client.on("event", ({ data }) => take(data)), "over"),
  Python: heard((take) => {
    pythons.on("line", (line) => JSON.parse(line).event && take(JSON.parse(line).event.data));
  }, "over"),
};
execFileSync("curl", ["-sS", "--fail", "--noproxy", "*", "-d", "by curl", url]);
await shows(pages[0], "by curl");
socket.send(JSON.stringify({ publish: { topic: ROOM, data: "by WebSocket" } }));
await shows(pages[0], "by WebSocket");
client.emit("publish", { topic: ROOM, data: "by Socket.IO" });
await shows(pages[0], "by Socket.IO");
python.stdin.write("by Python\n");
await shows(pages[0], "by Python");
execFileSync("curl", ["-sS", "--fail", "--noproxy", "*", "-d", "over", url]);
const spoken = ["by curl", "by WebSocket", "by Socket.IO", "by Python", "over"];
for (const [way, texts] of Object.entries(ways)) assert.deepEqual(await texts, spoken, way);
for (const page of pages) {
  await shows(page, "over");
  assert.deepEqual(await shown(page), [...all, ...spoken]);
}

// An array of two words is words, too, with scripts and without.
const array = '["page 0", "hello"]';
execFileSync("curl", ["-sS", "--fail", "--noproxy", "*", "-d", array, `${nodes[1]}/topics/${ROOM}`]);
await shows(pages[0], array);
const plain = await open(await browser.newContext({ javaScriptEnabled: false }), nodes[1]);
assert.equal((await shown(plain)).at(-1), array);
curl.kill();
python.kill();
client.close();
socket.close();

assert.deepEqual(complaints, []);
await finish(browser);
