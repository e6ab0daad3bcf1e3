// Streams in one Chromium page: node chromium.mjs ORIGIN
//
// The page is the hub's own (`ORIGIN/`), or with `--elsewhere` one of another origin on this machine,
// such as a dashboard under development, or with `--as NAME` one of another host. Commands, one JSON object per line of standard input:
//
//   {"open": NAME, "url": URL, "with": "EventSource" | "event-source-polyfill" | "fetch-event-source" | "WebSocket"}
//   {"publish": EVENT, "on": NAME, "ref": REF}
//   {"close": NAME}
//
// The end of standard input ends it. Requests are not intercepted, because that makes Chromium add
// `Cache-Control: no-cache` to all of them, which hubs tell EventSource by.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { finish, launch } from "./browser.mjs";
import { listen } from "./listen.mjs";

const say = (line) => console.log(JSON.stringify(line));
const library = (path) => readFileSync(new URL(`node_modules/${path}`, import.meta.url), "utf8");

const origin = process.argv[2];
const as = process.argv.includes("--as") ? process.argv[process.argv.indexOf("--as") + 1] : null;
const browser = await launch(as ? [`--host-resolver-rules=MAP ${as} 127.0.0.1`] : []);
const page = await browser.newPage();
page.on("pageerror", (error) => console.error(`page: ${error.message}`));
await page.exposeFunction("sayAll", (lines) => lines.forEach(say));

if (as || process.argv.includes("--elsewhere")) {
  const server = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>A dashboard under development</title>");
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  await page.goto(`http://${as ?? "127.0.0.1"}:${server.address().port}/`);
} else {
  await page.goto(`${origin}/`);
}

await page.evaluate(library("event-source-polyfill/src/eventsource.js"));
// A CommonJS module of two files, put together by hand in place of a bundler.
const cjs = (file) => `(exports, require) => {${library(`@microsoft/fetch-event-source/lib/cjs/${file}`)}\n}`;
await page.evaluate(`{
  const files = { "./parse": ${cjs("parse.js")}, "./fetch": ${cjs("fetch.js")} };
  const load = (name) => { const exports = {}; files[name](exports, load); return exports; };
  window.fetchEventSource = load("./fetch").fetchEventSource;
}`);

await page.evaluate(`window.listen = ${listen}`);

await page.evaluate(() => {
  // Lines go out in batches, each when the one before has been taken: paced by the reader.
  let waiting = [];
  let sending = false;
  async function tell(line) {
    waiting.push(line);
    if (sending) return;
    sending = true;
    while (waiting.length) await window.sayAll(waiting.splice(0));
    sending = false;
  }

  const NAMES = ["message", "tidings.gap", "tidings.close", "tidings.open", "tidings.heartbeat"];
  const closers = {};

  function eventTarget(Source) {
    return (stream, url) => {
      const source = new Source(url);
      source.onopen = () => tell({ stream, open: true });
      source.onerror = () => tell({ stream, lost: true });
      for (const name of NAMES) {
        source.addEventListener(name, (e) => tell({ stream, id: e.lastEventId, event: e.type, data: e.data }));
      }
      return () => source.close();
    };
  }

  function fetchEventSource(stream, url) {
    const controller = new AbortController();
    window.fetchEventSource(url, {
      signal: controller.signal,
      openWhenHidden: true,
      onopen: async () => tell({ stream, open: true }),
      onmessage: ({ id, event, data }) => tell({ stream, id, event: event || "message", data }),
      onerror: () => void tell({ stream, lost: true }),
      // A clean end makes it stop for ever, unless this throws.
      onclose: () => {
        throw new Error("the stream ended");
      },
    });
    return () => controller.abort();
  }

  const sockets = {};
  function webSocket(stream, url) {
    sockets[stream] = window.listen(WebSocket, url, (line) => tell({ stream, ...line }));
    return () => sockets[stream].close();
  }
  window.publishOn = (stream, ref, event) => sockets[stream].publish(ref, event);

  const openers = {
    EventSource: eventTarget(window.EventSource),
    "event-source-polyfill": eventTarget(window.EventSourcePolyfill),
    "fetch-event-source": fetchEventSource,
    WebSocket: webSocket,
  };
  window.openStream = (stream, url, kind) => (closers[stream] = openers[kind](stream, url));
  window.closeStream = (stream) => closers[stream]();
});

say({ ready: true });

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.open !== undefined) {
    await page.evaluate(([...args]) => void window.openStream(...args), [command.open, command.url, command.with]);
  } else if (command.publish !== undefined) {
    await page.evaluate(([...args]) => window.publishOn(...args), [command.on, command.ref, command.publish]);
  } else {
    await page.evaluate((stream) => window.closeStream(stream), command.close);
    say({ stream: command.close, closed: true });
  }
}
await finish(browser);
