// Takes the pictures of docs/examples.md: node pictures.mjs FOLDER-OF-EXAMPLES
//
// Starts the examples that were built there, each with its log in memory, and gives them something to show.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { finish, launch } from "./browser.mjs";

const [examples] = process.argv.slice(2);
const folder = fileURLToPath(new URL("../../docs/pictures/", import.meta.url));
const [DESKTOP, PHONE] = [{ width: 900, height: 560 }, { width: 390, height: 640 }];

const browser = await launch();
const running = [];
process.on("exit", () => running.forEach((program) => program.kill()));

/** Starts an example on a free port, and gives its address. */
async function start(name) {
  const env = { ...process.env, TIDINGS_LISTEN: "127.0.0.1:0", TIDINGS_LOG__ENGINE: "memory" };
  const program = spawn(join(examples, name), { env, cwd: tmpdir(), stdio: ["ignore", "pipe", "inherit"] });
  running.push(program);
  const [line] = await once(program.stdout, "data");
  return /http:\S+/.exec(line)[0];
}

async function post(url, body, headers = {}) {
  const answer = await fetch(url, { method: "POST", body, headers, redirect: "manual" });
  assert.ok(answer.status < 400, await answer.text());
}

async function open(url, viewport, colorScheme) {
  const context = await browser.newContext({ viewport, colorScheme, locale: "en-GB", timezoneId: "UTC" });
  const page = await context.newPage();
  await page.goto(url);
  await page.waitForSelector('#state[data-state="open"]');
  return page;
}

async function take(page, name) {
  await page.waitForTimeout(1500); // for what is fresh to look like the rest
  await page.screenshot({ path: join(folder, name) });
}

const chat = await start("chat");
const page = await open(chat, DESKTOP, "light");
await page.fill("[name=from]", "Ada");
for (const [from, text] of [
  ["Grace", "Both nodes are up, on one Redis. Who wants to break it?"],
  ["Ada", "Me! kill -9 on the first one, now."],
  ["Alan", "My page said “coming back…”, for as long as it took to read that."],
  ["Grace", "And nothing is missing here."],
]) {
  await post(`${chat}publish`, JSON.stringify({ topic: "chat/lobby", data: { from, text } }), { "Content-Type": "application/json" });
}
await post(`${chat}topics/chat/lobby`, "build 212 is green");
await page.fill("[name=text]", "That one came by curl -d.");
await page.press("[name=text]", "Enter");
await take(page, "chat.png");

const dashboard = await start("dashboard");
for (const [id, status] of [[1, "delivered"], [2, "delivered"], [3, "shipped"], [4, "delivered"], [5, "shipped"], [7, "packed"]]) {
  await post(`${dashboard}orders/${id}`, `status=${status}`);
}
await take(await open(dashboard, DESKTOP, "light"), "dashboard.png");
await take(await open(dashboard, PHONE, "dark"), "dashboard-phone.png");
await finish(browser);
