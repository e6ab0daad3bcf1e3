// The list of events: newest first, bounded, painted in batches. Knows nothing of connections. Data
// becomes text nodes only, never markup.

import { pretty } from "./json.js";

/** Rows on the page, and rows held back while paused: older ones go. */
export const ROWS_MAX = 200;
/** At most one paint in this many milliseconds, so that a flood costs one paint per batch. */
const PAINT_EVERY_MS = 60;
/** What of an event's data is shown before "Show all". */
const LINES_SHOWN = 14;
const CHARS_SHOWN = 1200;

export class Rows {
  #list;
  #onChange;
  #waiting = [];
  #timer;
  #painted = 0;
  #max;
  paused = false;

  /** `onChange` is called after each paint, and when a row waits while paused. */
  constructor(list, onChange, max = ROWS_MAX) {
    this.#list = list;
    this.#onChange = onChange;
    this.#max = max;
  }

  get size() {
    return this.#list.childElementCount;
  }

  /** Rows that "Resume" would show. */
  get held() {
    return this.paused ? this.#waiting.length : 0;
  }

  /** `make` builds the row, and only if it will be painted. */
  add(make) {
    this.#waiting.push(make);
    if (this.#waiting.length > this.#max) this.#waiting.shift();
    if (this.paused) return this.#onChange();
    const due = this.#painted + PAINT_EVERY_MS - performance.now();
    this.#timer ??= setTimeout(() => this.#paint(), Math.max(0, due));
  }

  pause(paused) {
    this.paused = paused;
    this.#paint();
  }

  clear() {
    this.#waiting = [];
    this.#list.replaceChildren();
    this.#onChange();
  }

  #paint() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.paused) return this.#onChange();
    this.#painted = performance.now();
    const rows = this.#waiting.reverse().map((make) => make());
    this.#waiting = [];
    this.#list.prepend(...rows);
    while (this.#list.childElementCount > this.#max) this.#list.lastElementChild.remove();
    this.#onChange();
  }
}

/** A row for an event: the fields of its envelope. */
export function eventRow({ topic, id, own_id, event, time, data }) {
  const head = element("div", "row-head", element("span", "topic", topic));
  if (event) head.append(element("span", "chip", event));
  if (own_id) head.append(element("span", "own", own_id));
  const when = element("time", "time", clock(new Date(time)));
  when.dateTime = when.title = time;
  head.append(element("span", "meta", element("span", "id", id), when));
  return element("li", "row", head, dataBlock(data));
}

/** A row for something the hub or the connection says: not an event of any topic. */
export function noteRow(kind, title, text, facts = []) {
  const row = element("li", `note ${kind}`, element("div", "note-head", element("strong", "", title), now()));
  if (text) row.append(element("p", "", text));
  const known = facts.filter(([, value]) => value !== null && value !== undefined);
  if (known.length) {
    const list = element("dl");
    for (const [name, value] of known) {
      list.append(element("div", "", element("dt", "", name), element("dd", "", String(value))));
    }
    row.append(list);
  }
  return row;
}

function dataBlock(data) {
  if (data === "") return element("p", "no-data", "no data");
  const block = element("pre", "data");
  const { shown, whole, lines } = cut(tokens(data));
  show(block, shown);
  if (whole) return block;
  const more = element("button", "more", `Show all ${lines.toLocaleString()} lines, ${size(data)}`);
  more.type = "button";
  more.addEventListener("click", () => {
    // Made again: tokens take much more than the data, and few rows are asked for all of it.
    show(block, tokens(data));
    more.remove();
    block.tabIndex = 0;
    block.focus();
  });
  return element("div", "cut", block, more);
}

const tokens = (data) => pretty(data) ?? [["text", data]];

/** (One by one: they may be more than a call takes arguments.) */
function show(block, tokens) {
  block.replaceChildren();
  for (const one of tokens) block.append(token(one));
}

/** As much of the tokens as a row shows at first. */
function cut(tokens) {
  const lines = tokens.reduce((sum, [, text]) => sum + text.split("\n").length - 1, 1);
  const chars = tokens.reduce((sum, [, text]) => sum + text.length, 0);
  if (lines <= LINES_SHOWN && chars <= CHARS_SHOWN) return { shown: tokens, whole: true, lines };
  const shown = [];
  let linesLeft = LINES_SHOWN - 4; // a little less, so that "Show all" shows more than a line or two
  let charsLeft = CHARS_SHOWN;
  for (const [kind, text] of tokens) {
    const kept = text.split("\n").slice(0, linesLeft + 1).join("\n").slice(0, charsLeft);
    linesLeft -= text.split("\n").length - 1;
    charsLeft -= text.length;
    shown.push([kind, kept]);
    if (linesLeft < 0 || charsLeft <= 0) break;
  }
  return { shown, whole: false, lines };
}

function token([kind, text]) {
  return kind === "plain" || kind === "text" ? document.createTextNode(text) : element("span", kind, text);
}

function size(text) {
  const bytes = new TextEncoder().encode(text).length;
  return bytes < 1024 ? `${bytes} bytes` : `${(bytes / 1024).toFixed(1)} KiB`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** The local time, and the day unless it is today. */
export function clock(date) {
  if (Number.isNaN(date.getTime())) return "";
  const today = date.toDateString() === new Date().toDateString();
  const millis = String(date.getMilliseconds()).padStart(3, "0");
  return `${today ? "" : `${DAY.format(date)}, `}${CLOCK.format(date)}.${millis}`;
}

function now() {
  return element("time", "time", CLOCK.format(new Date()));
}

function element(name, className = "", ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}
