// The page: what is watched is in the address (`#topic=demo&topic=orders/**&tail=20`), so that a link
// to it can be shared. This file ties the forms, the subscription and the rows together.

import { watchCluster } from "./cluster.js";
import { ROWS_MAX, Rows, eventRow, noteRow } from "./rows.js";
import { Tidings } from "../tidings.js";

const $ = (id) => document.getElementById(id);
const TOPIC = "demo";
const START = "tail=20";

const hub = new Tidings(document.baseURI);

let watching = { topics: [], start: START };
let subscription;
let received = 0;
let unseen = 0;
let lost = false;

const rows = new Rows($("rows"), showRows);

// ---- What is watched ----

function fromAddress() {
  const query = new URLSearchParams(location.hash.slice(1));
  const topics = query.getAll("topic").filter(Boolean);
  const start = ["tail", "since"].find((name) => query.has(name));
  return {
    topics: topics.length ? topics : [TOPIC],
    start: start ? `${start}=${query.get(start)}` : query.has("live") ? "" : START,
  };
}

function toAddress({ topics, start }) {
  const query = new URLSearchParams(topics.map((topic) => ["topic", topic])).toString();
  return `#${readable(query)}${start === START ? "" : `&${start || "live"}`}`;
}

/** Slashes and stars need no escape in a query, and read better without. */
const readable = (query) => query.replaceAll("%2F", "/").replaceAll("%2A", "*").replaceAll("%3A", ":");

function watch(next) {
  subscription?.close();
  watching = next;
  received = 0;
  lost = false;
  rows.clear();
  $("last").hidden = true;
  showWatched();

  const start = Object.fromEntries(new URLSearchParams(watching.start));
  // What a reload has to show is what this page shows at its start.
  subscription = hub.subscribe(watching.topics, { ...start, resume: false, onEvent, onGap, onState });
}

$("watch").addEventListener("submit", (event) => {
  event.preventDefault();
  const topics = $("topics").value.split(/[\s,]+/).filter(Boolean);
  if (!topics.length) return;
  const next = { topics, start: $("start").value };
  const address = toAddress(next);
  // The same address again means: start over.
  if (address === location.hash) watch(next);
  else location.hash = address;
});

window.addEventListener("hashchange", () => watch(fromAddress()));

function showWatched() {
  const { topics, start } = watching;
  $("topics").value = topics.join(" ");
  if (![...$("start").options].some((option) => option.value === start)) {
    $("start").append(new Option(start.replace("=", " "), start));
  }
  $("start").value = start;
  const names = topics.join(", ");
  $("empty-topics").textContent = names;
  showTitle();

  const exact = topics.find((topic) => !topic.split("/").some((part) => part === "*" || part === "**"));
  const like = topics[0].replace(/\*+/g, "1");
  const target = exact ?? (like === "1" ? TOPIC : like);
  $("topic").value = target;
  say("", "");

  const single = topics.length === 1 && exact !== undefined;
  const query = readable(new URLSearchParams(topics.map((topic) => ["topic", topic])).toString());
  const listen = single ? hub.url + topicPath(exact) : `${hub.url}events?${query}`;
  $("curl-subscribe").textContent = `curl -N ${quoted(listen)}`;
  $("curl-publish").textContent = `curl -d 'hello' ${quoted(hub.url + topicPath(target))}`;
  $("js-subscribe").textContent =
    `import { Tidings } from "${hub.url}tidings.js";\n` +
    `const hub = new Tidings("${hub.url}");\n` +
    `hub.subscribe(${JSON.stringify(topics)}, { onEvent: console.log });`;
  $("shell").hidden = false;
}

const topicPath = (topic) => `topics/${topic.split("/").map(encodeURIComponent).join("/")}`;
const quoted = (text) => (/^[\w:/.%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// ---- What arrives ----

const STATES = { connecting: "Connecting…", open: "Live", waiting: "Reconnecting…", refused: "Stopped" };

function onState({ state, reason, problem }) {
  if (state === "closed") return;
  const again = lost && state === "connecting";
  $("state").dataset.state = again ? "waiting" : state;
  $("state-text").textContent = again ? STATES.waiting : STATES[state];
  if (state === "waiting" && !lost) {
    lost = true;
    rows.add(() => noteRow("lost", "Connection lost", reason));
  } else if (state === "open" && lost) {
    lost = false;
    const id = subscription.cursor;
    rows.add(() => noteRow("back", "Connected again", id && `Goes on after ${id}.`));
  }
  $("refused").hidden = state !== "refused";
  if (state === "refused") $("empty").hidden = true;
  if (problem) $("refused").textContent = [problem.title ?? reason, problem.detail].filter(Boolean).join(": ");
}

function onEvent(event) {
  showLastId(event.id);
  received += 1;
  if (document.hidden) {
    unseen += 1;
    showTitle();
  }
  rows.add(() => eventRow(event));
}

function onGap(said) {
  const [title, text] = gap(said);
  const facts = [["asked for", said.requested], ["oldest kept", said.oldest], ["missed", said.missed]];
  rows.add(() => noteRow("gap", title, text, facts));
}

function gap({ reason, missed }) {
  const count = typeof missed === "number" ? missed : null;
  const events = count === null ? "Events" : count === 1 ? "1 event" : `${count.toLocaleString()} events`;
  const were = count === 1 ? "was" : "were";
  switch (reason) {
    case "expired":
      return ["Gap", `${events} after the last one seen ${were} removed by retention. It goes on with the oldest kept.`];
    case "lagged":
      return ["Gap", `This page fell behind, and ${events.toLowerCase()} ${were} removed before they could be sent.`];
    case "unknown":
      return ["Gap", "The hub does not know the id asked for. It goes on with the oldest event kept."];
    case "epoch":
      return ["Gap", "The log is another one: it was wiped or restored. It goes on with the oldest event kept."];
    case "corrupt":
      return ["Gap", `${events} could not be read: the log file is damaged there.`];
    default:
      return ["Gap", `${events} ${were} missed (${reason}).`];
  }
}

// ---- The list and its tools ----

function showRows() {
  $("empty").hidden = rows.size > 0 || rows.held > 0;
  $("count").textContent = received.toLocaleString();
  $("pause").textContent = !rows.paused ? "Pause" : rows.held ? `Resume (${rows.held} new)` : "Resume";
  $("bounded").hidden = rows.size < ROWS_MAX;
  $("bounded").textContent = `Older than the newest ${ROWS_MAX} rows are not kept here. The hub has them.`;
}

function showLastId(id) {
  $("last").hidden = false;
  $("last-id").textContent = id;
}

function showTitle() {
  document.title = `${unseen ? `(${unseen}) ` : ""}${watching.topics.join(", ")} – Tidings`;
}

$("pause").addEventListener("click", () => {
  rows.pause(!rows.paused);
  $("pause").setAttribute("aria-pressed", String(rows.paused));
});
$("clear").addEventListener("click", () => rows.clear());

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = 0;
  showTitle();
});

// ---- Publish ----

$("publish").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const [topic, event, data] = ["topic", "event", "data"].map((id) => $(id).value);
  say("", "Publishing…");
  try {
    const { id } = await hub.publish(topic, data, { event: event || undefined });
    say("stored", `Stored as ${id}`);
  } catch ({ message, problem }) {
    say("problem", problem ? message : "The hub cannot be reached");
  }
});

$("topic").addEventListener("input", () => say("", ""));

$("data").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("publish").requestSubmit();
});

function say(kind, text) {
  $("published").className = kind;
  $("published").textContent = text;
}

// ---- Copy ----

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = $(button.dataset.copy);
    try {
      // Only pages from localhost or over https have a clipboard.
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
}

watch(fromAddress());
watchCluster($("cluster"), new URL("cluster", document.baseURI));
