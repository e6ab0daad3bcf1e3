// Makes a page that the hub rendered go on: it has all up to the cursor in its markup, and the stream begins there.

import { Rows, clock, eventRow, noteRow } from "./rows.js";

const ROWS_MAX = 500;
/** Before the stream is opened again after an answer that `EventSource` gives up at. */
const AGAIN_AFTER_MS = 3000;

const $ = (id) => document.getElementById(id);
const { dataset } = document.querySelector("main");
const stream = new URL(dataset.stream, location.href);
const list = $("rows");
const rows = new Rows(list, showRows, Math.max(ROWS_MAX, list.childElementCount));

// As in the rows that are yet to come.
for (const time of list.querySelectorAll("time")) {
  time.title = time.dateTime;
  time.textContent = clock(new Date(time.dateTime));
}

let cursor = dataset.cursor;
let events;
let timer;

function open() {
  close();
  show("connecting", "Connecting…");
  stream.searchParams.set("last_event_id", cursor);
  events = new EventSource(stream);
  events.onopen = () => show("open", "Live");
  events.onmessage = (event) => {
    cursor = event.lastEventId;
    const envelope = JSON.parse(event.data);
    rows.add(() => eventRow(envelope));
  };
  events.addEventListener("tidings.open", (event) => (cursor = event.lastEventId));
  events.addEventListener("tidings.gap", (event) => {
    const { reason, requested, oldest, missed } = JSON.parse(event.data);
    const facts = [["reason", reason], ["asked for", requested], ["oldest kept", oldest], ["missed", missed]];
    rows.add(() => noteRow("gap", "Gap", "Events are missing here.", facts));
  });
  events.onerror = () => {
    show("waiting", "Reconnecting…");
    if (events.readyState !== EventSource.CLOSED) return;
    close();
    timer = setTimeout(open, AGAIN_AFTER_MS * (0.8 + 0.4 * Math.random()));
  };
}

function close() {
  clearTimeout(timer);
  events?.close();
}

function showRows() {
  $("empty")?.remove();
  $("facts").textContent = "the newest first";
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state-text").textContent = text;
}

/** A browser has six connections for all tabs together: one that nobody looks at takes none. */
function look() {
  if (!document.hidden) return open();
  close();
  show("off", "Paused");
}

document.addEventListener("visibilitychange", look);
// A page with an open stream is not kept for going back to.
addEventListener("pagehide", close);
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) look();
});
look();
