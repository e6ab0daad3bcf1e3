// Server-Sent Events over fetch(). Knows nothing of the page.
//
// Why not EventSource: it hands an event to listeners of that event's name only, so a page that shows
// everything would have to know every name beforehand; and it hides an error's status and text.

/** Turns the text of an event stream into events, as the HTML standard has it. */
export class Parser {
  /** The id that a reconnect has to send. */
  lastId;
  #onEvent;
  #onRetry;
  #rest = "";
  #data = [];
  #event = "";
  #id;
  #first = true;

  constructor({ lastId = "", onEvent, onRetry }) {
    this.lastId = this.#id = lastId;
    this.#onEvent = onEvent;
    this.#onRetry = onRetry;
  }

  /** Takes the next piece of text, cut anywhere. */
  push(text) {
    if (this.#first && text !== "") {
      this.#first = false;
      if (text.startsWith("\uFEFF")) text = text.slice(1);
    }
    const buffer = this.#rest + text;
    let start = 0;
    const newline = /\r\n|\n|\r/g;
    for (let found; (found = newline.exec(buffer)); start = newline.lastIndex) {
      // A CR at the very end may be half of a CRLF: wait for what follows.
      if (found[0] === "\r" && newline.lastIndex === buffer.length) break;
      this.#line(buffer.slice(start, found.index));
    }
    this.#rest = buffer.slice(start);
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.#onRetry?.(Number(value));
  }

  #dispatch() {
    this.lastId = this.#id;
    const data = this.#data;
    const event = this.#event || "message";
    this.#data = [];
    this.#event = "";
    // A block without data moves the id and is no event.
    if (data.length) this.#onEvent({ event, id: this.lastId, data: data.join("\n") });
  }
}

/** The hub refused the request for good; `problem` is its RFC 9457 body. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.title ?? `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

const WAIT_MAX_MS = 30_000;

/**
 * One subscription that comes back by itself, with `Last-Event-ID`, until `stop()`.
 *
 * `onState` hears `{state}`: "connecting", "open", "waiting" (with `delayMs` and the `error`), or
 * "refused" (with the `error`; it does not come back from that). `onEvent` hears `{event, id, data}`.
 * `silenceMaxMs`: with no byte for that long the connection counts as lost (a laptop that slept).
 */
export class Subscription {
  lastId = "";
  #url;
  #on;
  #silenceMaxMs;
  #retryMs = 2000;
  #failures = 0;
  #stopped = false;
  #request;
  #timer;
  #wake;

  constructor(url, { onState, onEvent, silenceMaxMs = Infinity }) {
    this.#url = url;
    this.#on = { onState, onEvent };
    this.#silenceMaxMs = silenceMaxMs;
    this.#run();
  }

  stop() {
    this.#stopped = true;
    this.#request?.abort();
    this.#wake?.();
  }

  /** Ends the wait for the next try: the network is back, or somebody looks again. */
  retryNow() {
    this.#wake?.();
  }

  async #run() {
    while (!this.#stopped) {
      this.#tell({ state: "connecting" });
      let error = null;
      try {
        await this.#connection();
      } catch (caught) {
        error = caught;
      }
      if (this.#stopped) return;
      if (error instanceof Refused) return this.#tell({ state: "refused", error });
      await this.#pause(error);
    }
  }

  /** One connection from request to end. A clean end returns: the hub drains, or is full. */
  async #connection() {
    this.#request = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    try {
      this.#watchSilence();
      const response = await fetch(this.#url, { headers, signal: this.#request.signal });
      await check(response);
      this.#tell({ state: "open" });
      const parser = new Parser({
        lastId: this.lastId,
        onEvent: (event) => {
          this.#failures = 0;
          this.lastId = event.id;
          if (!this.#stopped) this.#on.onEvent(event);
        },
        onRetry: (ms) => (this.#retryMs = ms),
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        this.#watchSilence();
        const { done, value } = await reader.read();
        if (done) return;
        parser.push(value);
        this.lastId = parser.lastId;
      }
    } finally {
      clearTimeout(this.#timer);
    }
  }

  #watchSilence() {
    clearTimeout(this.#timer);
    if (this.#silenceMaxMs === Infinity) return;
    this.#timer = setTimeout(() => this.#request.abort(), this.#silenceMaxMs);
  }

  /** Waits as long as the hub asked (`retry:`), longer after each failure, never all at once. */
  #pause(error) {
    const grown = Math.min(this.#retryMs * 2 ** this.#failures, Math.max(WAIT_MAX_MS, this.#retryMs));
    const delayMs = Math.round(grown * (0.8 + 0.4 * Math.random()));
    this.#failures += 1;
    this.#tell({ state: "waiting", delayMs, error });
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delayMs);
      this.#wake = () => (clearTimeout(timer), resolve());
    }).finally(() => (this.#wake = undefined));
  }

  #tell(state) {
    if (!this.#stopped) this.#on.onState(state);
  }
}

/** Throws [`Refused`] where trying again cannot help, and a plain error where it may. */
async function check(response) {
  const type = response.headers.get("Content-Type") ?? "";
  if (response.ok && type.startsWith("text/event-stream")) return;
  const problem = await response.json().catch(() => ({}));
  const passing = response.status >= 500 || response.status === 408 || response.status === 429;
  if (passing) throw new Error(problem.title ?? `HTTP ${response.status}`);
  throw new Refused(response.status, response.ok ? { title: "This is not an event stream" } : problem);
}
