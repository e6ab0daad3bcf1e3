// The page's own modules: its JSON, and what it shows of a cluster.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

/** The page's files are modules by how the page loads them, not by a package.json beside them. */
const load = (name) => import(module(name));

function module(name) {
  const text = readFileSync(new URL(`../../public/${name}`, import.meta.url), "utf8");
  const whole = text.replace(/from "\.\/(.*)"/g, (_, other) => `from "${module(other)}"`);
  return `data:text/javascript,${encodeURIComponent(whole)}`;
}

const { pretty } = await load("json.js");
const { eventRow } = await load("rows.js");
const { ask, describe } = await load("cluster.js");

const offline = () => Promise.reject(new TypeError("network"));

const text = (json) => pretty(json)?.map(([, part]) => part).join("");

test("JSON is indented and nothing else", () => {
  assert.equal(text('{"a":1.0,"b":[12345678901234567890,"\\u00e9"]}'), '{"a": 1.0, "b": [12345678901234567890, "\\u00e9"]}');
  const long = JSON.stringify({ list: Array(40).fill(1), empty: {}, deep: { text: "x".repeat(80), none: [] } });
  const lines = text(long).split("\n");
  assert.equal(lines[0], "{");
  assert.equal(lines[1], '  "list": [');
  assert.equal(lines[2], "    1,");
  assert.ok(lines.includes('  "empty": {},'));
  assert.deepEqual(JSON.parse(text(long)), JSON.parse(long));
  for (const other of ["", "plain", "1", '"string"', "{broken", "[1,]"]) assert.equal(pretty(other), null);
});

test("what is too deep or too long to be indented stays as it is", () => {
  const nested = (deep, items) => "[".repeat(deep) + items + "]".repeat(deep);
  assert.match(text(nested(127, '"a long item of a list",'.repeat(5) + "1")), /\n {254}"a long item/);
  for (const deep of [128, 20_000]) assert.equal(pretty(nested(deep, "1")), null);
  const long = nested(1, '"x",'.repeat(16 * 1024 - 1) + "12");
  assert.notEqual(pretty(long), null);
  assert.equal(pretty(` ${long}`), null);
});

test("all of what was cut is shown at a click", () => {
  class Element {
    children = [];
    append(...more) {
      this.children.push(...more);
    }
    replaceChildren(...all) {
      this.children = all;
    }
    get text() {
      return this.children.map((child) => child.text ?? child).join("");
    }
    addEventListener(type, act) {
      this[type] = act;
    }
    remove() {}
    focus() {}
  }
  globalThis.document = { createElement: () => new Element(), createTextNode: (text) => text };
  try {
    const data = `[${"1,".repeat(32 * 1024 - 2)}1]`;
    const [, { children: [block, more] }] = eventRow({ topic: "a", id: "1-1", time: "2026-11-20T08:00:00Z", data }).children;
    assert.ok(block.text.length < 2000);
    assert.equal(more.text, "Show all 32,769 lines, 64.0 KiB");
    more.click();
    assert.equal(block.text.replaceAll(/\s/g, ""), data);
  } finally {
    delete globalThis.document;
  }
});

test("every example webhook survives being indented", async () => {
  const { createRequire } = await import("node:module");
  const examples = createRequire(import.meta.url)("@octokit/webhooks-examples").flatMap((e) => e.examples);
  assert.ok(examples.length >= 329);
  for (const example of examples) assert.deepEqual(JSON.parse(text(JSON.stringify(example))), example);
});

const node = (id, address, more) => ({
  id,
  address,
  version: "0.1.0",
  format: 1,
  position: "12345",
  lag_entries: 0,
  lag_seconds: 0,
  streams: 0,
  ...more,
});

test("nodes are in one order, whichever answers", () => {
  const nodes = [
    node("aaaaaaaaaaaaaaaa", "10.0.0.1:8080", { streams: 1 }),
    node("bbbbbbbbbbbbbbbb", "10.0.0.2:8080", { streams: 1200, lag_entries: 3, lag_seconds: 0.25 }),
  ];
  const journal = "redis://10.0.0.9:6379";
  const first = describe({ journal, linked: true, nodes });
  const second = describe({ journal, linked: false, nodes: nodes.toReversed() });
  assert.equal(first.journal, "2 nodes on redis://10.0.0.9:6379");
  assert.equal(second.journal, "2 nodes on redis://10.0.0.9:6379, which is not reached");
  for (const { nodes } of [first, second]) {
    assert.deepEqual(nodes.map(({ id }) => id), ["aaaaaaaa", "bbbbbbbb"]);
    assert.deepEqual(nodes.map(({ behind }) => behind), [false, true]);
    assert.equal(nodes[0].facts, "version 0.1.0 · at 12345 · up to date · 1 stream");
    assert.equal(nodes[1].facts, "version 0.1.0 · at 12345 · 3 entries and 0.25 s behind · 1,200 streams");
  }
  assert.deepEqual(first.nodes.map(({ own }) => own), [true, false]);
  assert.deepEqual(second.nodes.map(({ own }) => own), [false, true]);
});

test("a hub that is alone is told from one that does not answer", async () => {
  const answered = async (answer) => {
    globalThis.fetch = answer;
    return ask("/cluster");
  };
  const json = (status, body) => async () => new Response(body, { status });
  assert.equal(await answered(json(200, '{"journal":null,"nodes":[]}')), null);
  assert.equal(await answered(json(503, "{}")), undefined);
  assert.equal(await answered(json(200, "<!doctype html>")), undefined);
  assert.equal(await answered(json(200, "{}")), undefined);
  assert.equal(await answered(offline), undefined);
  assert.deepEqual(await answered(json(200, '{"nodes":[{}]}')), { nodes: [{}] });
});
