// Tabs of one Chromium, each with subscriptions of `public/tidings.js`: node tabs.mjs ORIGIN [--elsewhere] [FLAG…]
//
// The tabs' pages are the hub's, or with `--elsewhere` of another origin on this machine. Other flags are Chromium's.
//
// Commands, one JSON object per line of standard input:
//
//   {"open": TAB, "topics": [...], "options": {...}}   subscribes, in a new tab if there is none of that name
//   {"again": TAB}                                     reloads it, and subscribes to the same
//   {"close": TAB}                                     closes it
//   {"end": TAB}                                       ends its subscriptions
//   {"freeze": TAB}, {"thaw": TAB}                     as browsers do with hidden tabs
//   {"lose": TAB}                                      loses a third of what it tells other tabs, and says some twice
//   {"hang": TAB, "ms": MS}                            its script does nothing else for so long
//   {"publish": TAB, "topic": TOPIC, "data": DATA}
//   {"leaders": ""}                                    which tabs lead
//
// A line about a subscription has its tab's name as "stream"; "TAB/state" tells its states, and "" what was asked for.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { finish, launch } from "./browser.mjs";

const say = (line) => console.log(JSON.stringify(line));
const answer = (event, data = "") => say({ id: "", event, data: JSON.stringify(data) });

const [origin, ...flags] = process.argv.slice(2);
const elsewhere = flags[0] === "--elsewhere" && flags.shift();
const browser = await launch(flags);
// Without a subscription of its own.
const address = elsewhere ? await servePage() : `${origin}/problems/`;
const context = await browser.newContext();
const tabs = new Map();
await context.exposeFunction("sayAll", (name, lines) => {
  for (const { n, ...line } of lines) {
    if (n <= tabs.get(name)?.said) continue;
    tabs.get(name).said = n;
    say(line);
  }
});

async function servePage() {
  const server = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>A dashboard under development</title>");
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return `http://127.0.0.1:${server.address().port}/`;
}

async function open(name) {
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error(`${name}: ${error.message}`));
  tabs.set(name, { page, asked: [], said: 0 });
  await page.goto(address);
}

async function subscribe(name, { topics, options }) {
  const { page } = tabs.get(name);
  await page.evaluate(
    async ({ origin, name, topics, options }) => {
      const { Tidings } = await import(`${origin}/tidings.js`);
      // Numbered, and kept over a reload: what the page has seen is told, and once.
      let waiting = JSON.parse(sessionStorage.waiting ?? "[]");
      let sending = false;
      async function tell(line) {
        sessionStorage.said = Number(sessionStorage.said ?? 0) + 1;
        waiting.push({ n: Number(sessionStorage.said), ...line });
        sessionStorage.waiting = JSON.stringify(waiting);
        if (sending) return;
        sending = true;
        while (waiting.length) {
          const { length } = waiting;
          await window.sayAll(name, waiting);
          waiting = waiting.slice(length);
          sessionStorage.waiting = JSON.stringify(waiting);
        }
        sending = false;
      }
      window.hub = new Tidings(origin);
      const message = (event, data) => tell({ stream: name, id: "", event, data: JSON.stringify(data) });
      const subscription = window.hub.subscribe(topics, {
        ...options,
        onEvent: ({ id, event, data }) => tell({ stream: name, id, event: event ?? "message", data }),
        onGap: (gap) => message("tidings.gap", gap),
        onState: (state) => {
          subscription.leads = state.leader;
          if (state.state === "open") tell({ stream: name, open: true });
          if (state.state === "waiting") tell({ stream: name, lost: true });
          tell({ stream: `${name}/state`, id: "", event: state.state, data: JSON.stringify(state) });
        },
      });
      (window.subscriptions ??= []).push(subscription);
    },
    { origin, name, topics, options },
  );
}

const commands = {
  async open(name, asked) {
    if (!tabs.has(name)) await open(name);
    tabs.get(name).asked.push(asked);
    await subscribe(name, asked);
  },
  async again(name) {
    const { page, asked } = tabs.get(name);
    await page.reload();
    for (const one of asked) await subscribe(name, one);
  },
  async close(name) {
    await tabs.get(name).page.close({ runBeforeUnload: false });
    tabs.delete(name);
    say({ stream: name, closed: true });
  },
  async end(name) {
    const tab = tabs.get(name);
    tab.asked = [];
    await tab.page.evaluate(() => window.subscriptions.splice(0).forEach((one) => one.close()));
    say({ stream: name, closed: true });
  },
  freeze: (name) => live(name, "frozen"),
  thaw: (name) => live(name, "active"),
  async lose(name) {
    await tabs.get(name).page.evaluate(() => {
      const post = BroadcastChannel.prototype.postMessage;
      BroadcastChannel.prototype.postMessage = function (message) {
        for (let times = Math.floor(3 * Math.random()); times > 0; times -= 1) post.call(this, message);
      };
    });
    answer("lossy");
  },
  async hang(name, { ms }) {
    const hang = (ms) => void setTimeout(() => {
      for (const end = Date.now() + ms; Date.now() < end; );
    });
    await tabs.get(name).page.evaluate(hang, ms);
  },
  async publish(name, { topic, data }) {
    const publish = ([topic, data]) => window.hub.publish(topic, data).catch(({ message, problem }) => ({ message, problem }));
    answer("published", await tabs.get(name).page.evaluate(publish, [topic, data]));
  },
  async leaders() {
    const leads = () => window.subscriptions?.some((subscription) => subscription.leads);
    const all = [...tabs].map(async ([name, { page }]) => [name, await page.evaluate(leads)]);
    answer("leaders", (await Promise.all(all)).filter(([, leads]) => leads).map(([name]) => name));
  },
};

async function live(name, state) {
  const session = await context.newCDPSession(tabs.get(name).page);
  await session.send("Page.setWebLifecycleState", { state });
  await session.detach();
  answer(state);
}

say({ ready: true });

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const [verb] = Object.keys(command);
  await commands[verb](command[verb], command);
}
await finish(browser);
