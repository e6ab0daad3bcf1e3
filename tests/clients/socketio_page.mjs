// npm `socket.io-client` 4 in a page of Chromium: node socketio_page.mjs [HOST]
//
// The page is one of another origin, at `http://HOST:port/` (127.0.0.1 unless it is given; any name leads there). Commands
// are those of socketio_driver.mjs, and:
//
//   {"fetch": NAME, "url", "options": {...}}   {"client": NAME, "status"}, 0 if the page may not see it

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { finish, launch } from "./browser.mjs";

const say = (line) => console.log(JSON.stringify(line));
const text = (path) => readFileSync(new URL(path, import.meta.url), "utf8");

const host = process.argv[2] ?? "127.0.0.1";
const server = createServer((_, response) => {
  response.setHeader("Content-Type", "text/html");
  response.end("<!doctype html><title>A page elsewhere</title>");
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const browser = await launch([`--host-resolver-rules=MAP ${host} 127.0.0.1`]);
const page = await browser.newPage();
page.on("pageerror", (error) => console.error(`page: ${error.message}`));
await page.exposeFunction("say", say);
await page.goto(`http://${host}:${server.address().port}/`);
await page.evaluate(text("node_modules/socket.io-client/dist/socket.io.js"));
await page.evaluate(`${text("socketio_driver.mjs").replace("export function", "function")}
  window.run = driver({ 4: window.io }, window.say);
  window.ask = ({ fetch: client, url, options }) =>
    fetch(url, options).then(({ status }) => window.say({ client, status }), () => window.say({ client, status: 0 }));`);

say({ client: "", ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  await page.evaluate((command) => void (command.fetch ? window.ask(command) : window.run(command)), command);
}
await finish(browser);
