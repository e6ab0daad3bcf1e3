// The browser client where there is no browser: its pure parts, a subscription without other tabs, and its package.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const client = readFileSync(new URL("../../public/tidings.js", import.meta.url), "utf8");
const { Refused, Tidings, backoff, compare, matches } = await import(`data:text/javascript,${encodeURIComponent(client)}`);

test("it is under 6 KiB, compressed", () => {
  const { length } = gzipSync(client, { level: 9 });
  assert.ok(length < 6 * 1024, `${length} bytes`);
});

test("patterns select as the hub has it", () => {
  for (const [pattern, topics, others] of [
    ["a", ["a"], ["b", "a/", "a/b", ""]],
    ["a/*", ["a/b", "a/", "a/*"], ["a", "a/b/c", "b/a"]],
    ["*/b", ["a/b", "/b"], ["b", "a/b/", "a/c"]],
    ["a/**", ["a/b", "a/b/c", "a/"], ["a", "b/a"]],
    ["**", ["a", "a/b", "/"], []],
    ["*", ["a"], ["a/b"]],
    ["a*/b**", ["a*/b**"], ["ab/b", "a*/bc"]],
  ]) {
    for (const topic of topics) assert.ok(matches(pattern, topic), `${pattern} ${topic}`);
    for (const topic of others) assert.ok(!matches(pattern, topic), `${pattern} ${topic}`);
  }
});

test("cursors compare within an epoch, however large", () => {
  const sorted = ["0", "9", "10", "9007199254740992", "9007199254740993", "18446744073709551615"];
  sorted.forEach((a, x) => {
    sorted.forEach((b, y) => assert.equal(Math.sign(compare(`fe-${a}`, `fe-${b}`)), Math.sign(x - y), `${a} ${b}`));
    assert.ok(Number.isNaN(compare(`fe-${a}`, `fd-${a}`)));
  });
  assert.ok(Number.isNaN(compare("fe-1", "an own id")));
});

test("each failure doubles the wait, up to a bound, and never to the same", () => {
  assert.deepEqual([0, 1, 2, 3, 9, 2000].map((failures) => backoff(2000, failures, 0.5)), [2000, 4000, 8000, 16000, 30000, 30000]);
  assert.deepEqual([0, 1].map((random) => backoff(2000, 0, random)), [1500, 2500]);
  // The hub may ask for more.
  assert.equal(backoff(60_000, 3, 0.5), 60_000);
});

// ---- A hub that says what it is told to ----

const event = (n, more) => ({ topic: "a", id: `1-${n}`, own_id: null, event: null, time: "2026-11-20T08:00:00Z", data: `${n}`, ...more });
const page = (cursor, events = [], more) => () =>
  Response.json({ events, cursor, more: false, gap: null, ...more });
const lines = (...all) => all.map((line) => `${JSON.stringify(line)}\n`).join("");
const opened = (n) => ({ open: { cursor: `1-${n}` } });
const answer = (status, type, body) => () => new Response(body, { status, headers: { "Content-Type": type } });
const problem = (status, title, type = "/problems/some") => answer(status, "application/problem+json", JSON.stringify({ type, title, detail: "so" }));
/** What a proxy says while there is no hub behind it. */
const proxies = [
  answer(404, "text/html", "<!doctype html>"),
  answer(403, "application/json", '{"type":"/problems/some","title":"no"}'),
  answer(404, "application/problem+json", "null"),
  problem(400, "no", "about:blank"),
];
const offline = () => Promise.reject(new TypeError("network"));

/** A stream in pieces of so many bytes. Without an end it stays open. */
const stream = (text, size = 1e9, end = true, type = "application/x-ndjson") => (signal) => {
  const bytes = new TextEncoder().encode(text);
  const body = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      if (end) controller.close();
      else signal.addEventListener("abort", () => controller.error(signal.reason));
    },
  });
  return new Response(body, { headers: { "Content-Type": type } });
};

/** No answer, or none any more: the request fails when it is given up. */
const never = (signal, error) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(error ?? signal.reason)));

/** Runs a subscription against these answers. `done` says when it is enough, `silentMs` how long a stream or page may say nothing. */
async function subscribe(answers, done, options, silentMs) {
  const asked = [];
  const told = [];
  globalThis.fetch = async (url, { signal }) => {
    const { searchParams } = new URL(url);
    asked.push([searchParams.get("format"), searchParams.get("after") ?? `tail=${searchParams.get("tail")}`].join(" "));
    const answer = answers.shift();
    return (answer ?? never)(signal);
  };
  // No test waits for a backoff.
  const before = globalThis.setTimeout;
  globalThis.setTimeout = (act, ms) => before(act, [5000, 30_000].includes(ms) ? (silentMs ?? ms) : 1);
  const hub = new Tidings(`http://hub-${Math.random()}.test/`);
  let subscription;
  let deadline;
  try {
    await new Promise((resolve, reject) => {
      deadline = before(() => reject(new Error(`no more than ${told}`)), 60_000);
      const tell = (line) => {
        told.push(line);
        if (done(line)) resolve();
      };
      subscription = hub.subscribe(["a"], {
        ...options,
        onEvent: ({ data }) => tell(data),
        onGap: ({ reason }) => tell(`gap ${reason}`),
        onState: ({ state }) => tell(state),
      });
    });
  } finally {
    subscription.close();
    globalThis.setTimeout = before;
    clearTimeout(deadline);
  }
  return { asked, told };
}

test("a stream may be cut anywhere", async () => {
  const text = lines(opened(0), event(1, { data: "grüße, 你好, 🎉\r\n" }), { heartbeat: {} }, event(2)) + "\n";
  for (const size of [1, 2, 3, 7, 100, 1e9]) {
    const { told } = await subscribe([page("1-0"), stream(text, size, false)], (line) => line === "2");
    assert.deepEqual(told, ["connecting", "open", "grüße, 你好, 🎉\r\n", "2", "closed"], `in pieces of ${size}`);
  }
});

test("it comes back with its cursor after any failure, and takes nothing twice", async () => {
  const answers = [
    page("1-0"),
    stream(lines(opened(0), event(1)) + '{"topic":"never en'),
    offline,
    problem(503, "not ready"),
    answer(200, "text/html", "<!doctype html>"),
    stream(lines(opened(1), event(1), event(2), { close: { reason: "draining", retry: 5 } })),
    stream(lines(opened(2), event(3)), 1e9, false),
  ];
  const { asked, told } = await subscribe(answers, (line) => line === "3");
  const streams = ["1-0", "1-1", "1-1", "1-1", "1-1", "1-2"].map((cursor) => `ndjson ${cursor}`);
  assert.deepEqual(asked, ["json tail=0", ...streams]);
  assert.deepEqual(told.filter((line) => /^\d/.test(line)), ["1", "2", "3"]);
});

test("after a gap in the stream it reads for itself what it missed", async () => {
  const answers = [
    page("1-0"),
    stream(lines(opened(0), event(1), { gap: { reason: "lagged" } }, event(9)), 1e9, false),
    page("1-9", [event(5), event(9)], { gap: { reason: "lagged" } }),
    page("1-9"),
  ];
  const { asked, told } = await subscribe(answers, (line) => line === "9");
  assert.deepEqual(told, ["connecting", "open", "1", "gap lagged", "5", "9", "closed"]);
  assert.equal(asked[2], "json 1-1");
});

test("pages are read to the end, and what is already there is dropped", async () => {
  const answers = [
    page("1-2", [event(1), event(2)], { more: true }),
    page("1-3", [event(3)]),
    stream(lines(opened(2), event(3), event(4)), 1e9, false),
  ];
  const { told, asked } = await subscribe(answers, (line) => line === "4", { tail: 5 });
  assert.deepEqual(told.filter((line) => /^\d/.test(line)), ["1", "2", "3", "4"]);
  assert.deepEqual(asked.slice(0, 2), ["json tail=5", "json 1-2"]);
});

test("a page that does not come, or not to its end, is asked for again", async () => {
  const half = stream("{", 1, false, "application/json");
  const { asked, told } = await subscribe([never, half, page("1-1", [event(1)])], (line) => line === "1", {}, 50);
  assert.deepEqual(told.slice(0, 4), ["connecting", "waiting", "waiting", "1"]);
  assert.deepEqual(asked, Array(3).fill("json tail=0"));
});

test("a page may take long while it comes", async () => {
  const { setTimeout } = globalThis;
  const bytes = new Uint8Array(await page("1-1", [event(1)])().arrayBuffer());
  let at = 0;
  const slow = (signal) => {
    const body = new ReadableStream({
      start: (controller) => signal.addEventListener("abort", () => controller.error(signal.reason)),
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        controller.enqueue(bytes.slice(at, (at += 20)));
        if (at >= bytes.length) controller.close();
      },
    });
    return new Response(body, { headers: { "Content-Type": "application/json" } });
  };
  assert.ok(bytes.length > 5 * 20);
  const { told } = await subscribe([slow], (line) => line === "1", {}, 300);
  assert.deepEqual(told, ["connecting", "1", "closed"]);
});

test("where no stream comes it polls, whatever a browser says when it gives up", async () => {
  const others = (signal) => never(signal, new DOMException("The operation was aborted.", "AbortError"));
  for (const silent of [never, others]) {
    const { asked, told } = await subscribe([page("1-0"), silent, page("1-1", [event(1)])], (line) => line === "1", {}, 50);
    assert.deepEqual(asked.slice(0, 3), ["json tail=0", "ndjson 1-0", "json 1-0"]);
    assert.ok(!told.includes("waiting"), told.join());
  }
});

test("a stream that is left is ended", async () => {
  const left = [];
  const going = stream(lines(opened(0), { close: { reason: "draining", retry: 5 } }), 1e9, false);
  const answers = [page("1-0"), (signal) => left.push(signal) && going(signal), stream(lines(opened(0), event(1)), 1e9, false)];
  await subscribe(answers, (line) => line === "1");
  assert.deepEqual(left.map(({ aborted }) => aborted), [true]);
});

test("where a stream begins is told until all are there, even if another node is behind", async () => {
  const answers = [
    page("1-0"),
    stream(lines({ gap: { reason: "expired" } }, opened(9)), 1e9, false),
    page("1-5", [event(5)]),
    page("1-5"),
    page("1-9", [event(9)]),
  ];
  const { told } = await subscribe(answers, (line) => line === "9");
  assert.deepEqual(told, ["connecting", "open", "5", "9", "closed"]);
});

test("what the page keeps for itself stays", async () => {
  globalThis.sessionStorage = { undefined: "the page's" };
  try {
    await subscribe([page("1-1", [event(1)])], (line) => line === "1", { resume: false });
    assert.deepEqual(globalThis.sessionStorage, { undefined: "the page's" });
  } finally {
    delete globalThis.sessionStorage;
  }
});

test("what a proxy says is no refusal", async () => {
  const answers = [proxies[0], page("1-0"), ...proxies, stream(lines(opened(0), event(1)), 1e9, false)];
  const { told } = await subscribe(answers, (line) => line === "1");
  assert.deepEqual(told.slice(-3), ["open", "1", "closed"]);
});

test("a refusal ends it", async () => {
  const { asked, told } = await subscribe([offline, problem(400, "no")], (line) => line === "refused");
  assert.deepEqual(told, ["connecting", "waiting", "refused", "closed"]);
  assert.equal(asked.length, 2);
});

test("where pages may have no locks, it goes alone", async () => {
  const globals = {
    document: { addEventListener() {}, hidden: false },
    addEventListener() {},
    navigator: { locks: { request: () => Promise.reject(new Error("denied")) } },
  };
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true });
  try {
    const answers = [() => offline(), page("1-0"), stream(lines(opened(0), event(1)), 1e9, false)];
    const { told } = await subscribe(answers, (line) => line === "1");
    assert.deepEqual(told.slice(-3), ["open", "1", "closed"]);
  } finally {
    for (const name of Object.keys(globals)) delete globalThis[name];
  }
});

test("a handler that throws is the page's affair", async () => {
  const thrown = [];
  const before = globalThis.queueMicrotask;
  globalThis.queueMicrotask = (act) => before(() => {
    try {
      act();
    } catch (error) {
      thrown.push(error.message);
    }
  });
  const onThrow = (line) => {
    if (line === "1") throw new Error("of the page");
    return line === "2";
  };
  const { told } = await subscribe([page("1-2", [event(1), event(2)])], onThrow);
  globalThis.queueMicrotask = before;
  assert.deepEqual([told, thrown], [["connecting", "1", "2", "closed"], ["of the page"]]);
});

test("a publish is sent again with the same key until it is answered", async () => {
  const sent = [];
  const answers = [offline, problem(503, "not ready"), ...proxies.slice(0, 2), () => Response.json({ id: "1-1", topic: "a", duplicate: false }, { status: 201 })];
  globalThis.fetch = async (url, { body }) => {
    sent.push([url, JSON.parse(body)]);
    return answers.shift()();
  };
  const hub = new Tidings("http://hub.test/behind/a/proxy?#");
  assert.deepEqual(await hub.publish("a/../b", { n: 1 }, { event: "e", ownId: "o" }), { id: "1-1", topic: "a", duplicate: false });
  const { idempotency_key: key } = sent[0][1];
  assert.match(key, /^[0-9a-z]{16,}$/);
  const body = { topic: "a/../b", data: { n: 1 }, event: "e", own_id: "o", idempotency_key: key };
  assert.deepEqual(sent, Array(5).fill(["http://hub.test/behind/a/proxy/publish", body]));

  globalThis.fetch = async () => problem(422, "another content")();
  await assert.rejects(hub.publish("a", "x"), (error) => error instanceof Refused && error.status === 422 && error.message === "another content: so");
});

test("the package installs and has what its types say", async () => {
  const home = mkdtempSync(join(tmpdir(), "tidings-client-"));
  const run = (cwd, command, ...args) => execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  try {
    const source = fileURLToPath(new URL("../../clients/js/", import.meta.url));
    const [{ filename, files }] = JSON.parse(run(source, "npm", "pack", "--json", "--pack-destination", home));
    assert.deepEqual(files.map(({ path }) => path).sort(), ["README.md", "index.d.ts", "index.js", "package.json"]);
    writeFileSync(join(home, "package.json"), '{"type":"module"}');
    run(home, "npm", "install", "--offline", "--no-audit", "--no-fund", join(home, filename));
    writeFileSync(join(home, "use.mjs"), 'console.log(Object.keys(await import("tidings-client")).sort().join())');
    const names = run(home, "node", "use.mjs").trim().split(",");
    const types = readFileSync(new URL("../../clients/js/index.d.ts", import.meta.url), "utf8");
    const typed = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
    assert.deepEqual(names, typed.sort());
    assert.equal(readFileSync(join(home, "node_modules/tidings-client/index.js"), "utf8"), client);

    copyFileSync(new URL("types.ts", import.meta.url), join(home, "types.ts"));
    const compiler = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url));
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"];
    const compiled = spawnSync(compiler, [...options, "types.ts"], { cwd: home, encoding: "utf8" });
    assert.deepEqual([compiled.status, compiled.stdout], [0, ""]);
  } finally {
    rmSync(home, { recursive: true });
  }
});
