// Tidings in a browser: see docs/browser.md.
//
// The tab with the lock leads: it reads one stream of all tabs' topics, and tells *stretches* `{from, to, topics, events}`:
// all that there is beyond the cursor `from`, up to `to`. A subscription takes what is beyond its own cursor. If a stretch
// begins beyond that (after a gap `from` is null), it reads pages first.

const HEARTBEAT_MS = 2000;
/** A stream so silent is dead or held back, a leader so silent hangs. */
const SILENCE_MS = 5000;
/** For the other tabs to tell their topics. */
const GATHER_MS = 50;
/** Heartbeats from one roll call of the tabs to the next. */
const CALL_BEATS = 5;
const RETRY_MS = 2000;
const RETRY_MAX_MS = 30_000;
const POLL_S = 20;
/** Polling lasts so long at first, then doubled, at most. */
const POLL_MS = 60_000;
const POLL_MAX_MS = 3_600_000;
const PAGE_MS = 30_000;
/** Stretches held while pages are read; without the oldest it reads on. */
const HELD_MAX = 100;
const PUBLISH_TRIES = 5;

const CHANGED = new Error("other topics");
const SILENT = new Error("silence");

const now = () => performance.now();
const random = () => crypto.getRandomValues(new Uint32Array(4)).join("");
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Whether a pattern selects a topic: `*` is one segment, a final `**` one or more. */
export function matches(pattern, topic) {
  const names = topic.split("/");
  const segments = pattern.split("/");
  for (const [at, segment] of segments.entries()) {
    if (at === names.length) return false;
    if (segment === "**") return true;
    if (segment !== "*" && segment !== names[at]) return false;
  }
  return names.length === segments.length;
}

/** Below 0 if cursor `a` is before `b`, 0 if it is `b`, NaN if their epochs differ. */
export function compare(a, b) {
  const [epoch, x] = a.split("-");
  const [other, y] = b.split("-");
  // Numbers beyond 2^53, as decimals: the longer is the larger.
  return epoch === other ? x.length - y.length || (x > y) - (x < y) : NaN;
}

export const backoff = (baseMs, failures, random = Math.random()) =>
  Math.round(Math.min(baseMs * 2 ** failures, Math.max(RETRY_MAX_MS, baseMs)) * (0.75 + random / 2));

/** The hub's last word: to try again cannot help. `problem` is its body (RFC 9457). */
export class Refused extends Error {
  constructor(status, problem) {
    super(`${problem.title}: ${problem.detail}`);
    this.status = status;
    this.problem = problem;
  }
}

async function check(response, type = "application/json") {
  const { ok, status, headers } = response;
  const is = (type) => headers.get("Content-Type")?.startsWith(type);
  if (ok && is(type)) return response;
  const problem = await response.json().catch(() => {});
  // What is no problem of the hub's is a proxy's, and may pass.
  const own = is("application/problem+json") && /^\/problems\//.test(problem?.type);
  if (own && !/5..|408|429/.test(status)) throw new Refused(status, problem);
  throw Object.assign(new Error(problem?.title ?? `HTTP ${status}`), { retryMs: 1000 * headers.get("Retry-After") || undefined });
}

/** What subscriptions to one hub share. */
class Line {
  id = random();
  subscriptions = new Set();
  state = { state: "connecting" };
  peers = new Map();
  pauses = new Set();
  pollUntil = 0;
  pollMs = POLL_MS;
  apart = !(globalThis.document && navigator.locks);

  constructor(url) {
    this.url = url;
    this.name = `tidings 1 ${url}`;
    const page = globalThis.document;
    if (!page) return;
    addEventListener("pagehide", () => this.sleep());
    addEventListener("pageshow", () => this.wake());
    addEventListener("online", () => this.retry());
    page.addEventListener("freeze", () => this.sleep());
    page.addEventListener("resume", () => this.wake());
    page.addEventListener("visibilitychange", () => {
      if (!page.hidden) this.say({ retry: true });
    });
  }

  start(subscription) {
    if (this.awake) subscription.read();
    else this.wake();
  }

  remove(subscription) {
    this.subscriptions.delete(subscription);
    if (this.subscriptions.size) this.changed();
    else this.sleep();
  }

  /** The answer's text as it comes. It is waited for so long, and for each part. */
  async *get({ topics, request: { signal } }, query, patienceMs, type) {
    const request = new AbortController();
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => request.abort(SILENT), patienceMs);
    };
    signal.throwIfAborted();
    signal.onabort = () => request.abort(signal.reason);
    watch();
    try {
      const search = new URLSearchParams(query);
      for (const topic of topics) search.append("topic", topic);
      const response = await fetch(`${this.url}events?${search}`, { signal: request.signal, cache: "no-store" });
      const { body } = await check(response, type);
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        watch();
        const { done, value } = await reader.read();
        request.signal.throwIfAborted();
        if (done) return;
        yield value;
      }
    } catch (error) {
      // Not all browsers throw the reason itself.
      throw request.signal.reason ?? error;
    } finally {
      clearTimeout(timer);
      request.abort();
    }
  }

  async page(owner, start, wait = 0, patienceMs = PAGE_MS) {
    const query = { ...start, format: "json", limit: 1000, wait };
    let text = "";
    for await (const part of this.get(owner, query, 1000 * wait + patienceMs)) text += part;
    return JSON.parse(text);
  }

  /** Ends early if the hub may be reached again. */
  pause(ms) {
    return new Promise((resolve) => {
      this.pauses.add(resolve);
      setTimeout(() => this.pauses.delete(resolve) && resolve(), ms);
    });
  }

  retry() {
    for (const end of this.pauses) end();
    this.pauses.clear();
  }

  // ---- Among pages ----

  wake() {
    if (this.awake || !this.subscriptions.size) return;
    this.awake = true;
    if (this.apart) this.lead();
    else {
      this.channel = new BroadcastChannel(this.name);
      this.channel.onmessage = ({ data }) => this.hear(data);
      this.watch = setInterval(() => {
        const late = now() - this.heard > SILENCE_MS + 500 * Math.random();
        if (late && !this.release && !document.hidden) this.stand({ steal: true });
      }, 1000);
      this.stand();
    }
    for (const subscription of this.subscriptions) subscription.read();
  }

  sleep() {
    if (!this.awake) return;
    this.awake = false;
    this.queued?.abort();
    this.stepDown();
    clearInterval(this.watch);
    this.channel?.postMessage({ page: this.id, bye: true });
    this.channel?.close();
    this.queued = this.channel = undefined;
    for (const subscription of this.subscriptions) subscription.rest();
  }

  /** Leads once it has the lock; stands again if that is stolen. Without locks it goes alone. */
  async stand(how) {
    const before = this.queued;
    const queued = (this.queued = new AbortController());
    let led;
    this.heard = now();
    const held = navigator.locks.request(this.name, how ?? { signal: queued.signal }, () => {
      if (this.queued === queued) return (led = this.lead());
    });
    before?.abort();
    await held.catch(() => {});
    if (this.queued !== queued) return;
    this.stepDown();
    if (led) this.stand();
    else this.part();
  }

  lead() {
    return new Promise((release) => {
      this.release = release;
      this.run(release);
    });
  }

  stepDown() {
    this.release?.();
    this.release = undefined;
    this.request?.abort(CHANGED);
    this.idle?.();
    this.retry();
  }

  /** To each tab its own stream. */
  part() {
    this.sleep();
    this.apart = true;
    this.wake();
  }

  say(message) {
    const told = { page: this.id, topics: this.topics, state: this.state, ...message };
    this.channel?.postMessage(told);
    this.hear(told);
  }

  hear(message) {
    const { page, who, state } = message;
    if (message.hello) {
      this.peers.set(page, { ...message, calls: 0 });
      if (this.release) this.changed();
    } else if (message.bye) this.peers.delete(page);
    else if (message.retry) this.retry();
    else if (message.part) this.part();
    else {
      this.heard = now();
      if (!this.release) this.state = state;
      for (const subscription of this.subscriptions) subscription.hear(message);
      if (who && page !== this.id) this.hello();
    }
  }

  hello() {
    this.channel?.postMessage({ page: this.id, hello: true, topics: this.own(), at: this.lowest([]) });
  }

  changed() {
    if (!this.release) return this.hello();
    this.idle?.();
    this.gathering ??= setTimeout(() => {
      this.gathering = undefined;
      if (this.all().every((topic) => this.topics?.includes(topic))) this.beat();
      else if (this.topics) this.request?.abort(CHANGED);
    }, GATHER_MS);
  }

  own() {
    return [...this.subscriptions].flatMap(({ ready, topics }) => (ready ? topics : []));
  }

  all() {
    return [...new Set([...this.own(), ...[...this.peers.values()].flatMap(({ topics }) => topics)])].sort();
  }

  /** Where all who have caught up are. */
  lowest(others) {
    const own = [...this.subscriptions].map(({ ready, request, cursor }) => ready && !request && cursor);
    const cursors = [...own, ...others].filter(Boolean);
    return cursors.sort((a, b) => compare(a, b) || 0)[0];
  }

  // ---- The leader ----

  async run(release) {
    this.topics = this.at = undefined;
    this.failures = 0;
    this.peers.clear();
    this.say({ who: true });
    let beats = 0;
    const timer = setInterval(() => {
      const who = ++beats % CALL_BEATS === 0;
      if (who) {
        for (const [page, peer] of this.peers) if (++peer.calls > 2) this.peers.delete(page);
        if (this.topics && !same(this.all(), this.topics)) this.request?.abort(CHANGED);
      }
      this.beat(who);
    }, HEARTBEAT_MS);
    await after(GATHER_MS);
    while (this.release === release) {
      const topics = this.all();
      if (topics.length) {
        const error = await this.connection(topics).catch((error) => error);
        if (this.release === release && error !== CHANGED) await this.failed(error);
      } else {
        this.topics = this.at = undefined;
        await this.rest();
      }
    }
    clearInterval(timer);
  }

  rest() {
    return new Promise((resolve) => (this.idle = resolve));
  }

  async connection(topics) {
    this.request = new AbortController();
    // Who wants the new topics has read them up to now.
    if (this.topics && !same(this.topics, topics)) while ((await this.poll()).more);
    this.topics = topics;
    if (!this.at) {
      this.at = this.lowest([...this.peers.values()].map(({ at }) => at));
      this.from = this.at ?? null;
    }
    if (this.state.state !== "open") this.set({ state: "connecting" });
    while (now() < this.pollUntil) {
      this.set({ state: "open", via: "poll" });
      await this.poll(POLL_S);
      this.failures = 0;
    }
    this.alive = false;
    try {
      return await this.stream();
    } catch (error) {
      if (error !== SILENT || this.alive) throw error;
    }
    // If a page comes, streams are held back.
    await this.poll(0, SILENCE_MS);
    this.pollUntil = now() + this.pollMs;
    this.pollMs = Math.min(2 * this.pollMs, POLL_MAX_MS);
    throw CHANGED;
  }

  async failed(error) {
    const { message: reason = "The hub ended the stream.", problem, retryMs = RETRY_MS } = error ?? {};
    if (!problem) {
      const ms = backoff(retryMs, this.failures++);
      this.set({ state: "waiting", reason, retryMs: ms });
      await this.pause(ms);
    } else if (this.peers.size) this.say({ part: true });
    else {
      this.set({ state: "refused", reason, problem });
      await this.rest();
    }
  }

  async stream() {
    let events = [];
    let rest = "";
    const tell = () => {
      if (events.length) this.stretch(events, events.at(-1).id);
      events = [];
    };
    const take = (line) => {
      if (line.topic) events.push(line);
      else if (line.gap) {
        tell();
        this.say({ from: (this.from = null) });
      } else if (line.open) {
        this.stretch([], line.open.cursor);
        this.set({ state: "open", via: "stream" });
      } else if (line.heartbeat) {
        this.alive = true;
        this.failures = 0;
        this.pollMs = POLL_MS;
        this.beat();
      } else if (line.close?.retry) {
        tell();
        throw Object.assign(new Error("The hub is going down."), { retryMs: line.close.retry });
      }
    };
    const query = { ...(this.at && { after: this.at }), format: "ndjson", open: 1, heartbeat: `${HEARTBEAT_MS}ms` };
    for await (const part of this.get(this, query, SILENCE_MS, "application/x-ndjson")) {
      const lines = (rest + part).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) take(JSON.parse(line));
      tell();
    }
  }

  async poll(wait, patienceMs) {
    const page = await this.page(this, this.at && { after: this.at }, wait, patienceMs);
    if (page.gap) this.from = null;
    this.stretch(page.events, page.cursor);
    return page;
  }

  stretch(events, to) {
    const { from } = this;
    this.from = this.at = to;
    this.say({ from, to, events });
  }

  set(state) {
    this.state = state;
    this.beat();
  }

  /** An empty stretch: who is behind finds out. */
  beat(who) {
    this.say({ who, ...(this.from && { from: this.from, to: this.at }) });
  }
}

class Subscription {
  #line;
  #on;
  #start;
  #key;
  #covered;
  #again;
  #held = [];
  #error;
  #told;
  #closed;

  constructor(line, topics, { after, since, tail = 0, resume = true, ...on }) {
    this.topics = topics;
    this.#line = line;
    this.#on = on;
    this.#start = since ? { since } : { tail };
    this.cursor = after;
    if (resume) {
      const keys = [...line.subscriptions].map((other) => other.#key);
      let count = 0;
      do this.#key = `${line.name} ${JSON.stringify([...topics].sort())} ${count++}`;
      while (keys.includes(this.#key));
      this.cursor ??= stored(() => sessionStorage[this.#key]);
    }
    line.subscriptions.add(this);
    queueMicrotask(() => this.#closed || line.start(this));
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.rest();
    if (this.#key) stored(() => delete sessionStorage[this.#key]);
    this.#line.remove(this);
    this.#show();
  }

  rest() {
    this.ready = false;
    this.request?.abort();
    this.request = undefined;
  }

  /** Until it can take what the leader tells; `request` is set meanwhile. */
  async read() {
    const request = (this.request = new AbortController());
    let failures = 0;
    let tries = 0;
    for (let more = true; more; ) {
      this.#again = false;
      try {
        const start = this.cursor ? { after: this.cursor } : this.#start;
        const page = await this.#line.page(this, start);
        if (this.request !== request) return;
        failures = 0;
        this.#error = undefined;
        if (page.gap) this.#call("onGap", page.gap);
        this.#take(page.events, page.cursor);
        more = page.more || this.#again || (!this.#join() && ++tries < 3);
        if (more && tries) await this.#line.pause(200);
      } catch (error) {
        if (this.request !== request) return;
        const { message: reason, problem, retryMs = RETRY_MS / 2 } = error;
        const ms = backoff(retryMs, failures++);
        this.#error = problem ? { state: "refused", reason, problem } : { state: "waiting", reason, retryMs: ms };
        this.#show();
        if (problem) return;
        await this.#line.pause(ms);
      }
      if (this.request !== request) return;
    }
    this.#held = [];
    this.request = undefined;
    if (!this.ready) {
      this.ready = true;
      this.#line.changed();
    }
    this.#show();
  }

  hear({ topics, from, to, events = [] }) {
    if (topics) this.#covered = this.topics.every((topic) => topics.includes(topic));
    if (this.#covered && this.cursor && from !== undefined) {
      if (from === null) this.#again = true;
      else if (this.#held.push({ from, to, events }) > HELD_MAX) this.#held.shift();
      if (!this.request && (this.#again || !this.#join())) this.read();
    }
    this.#show();
  }

  /** False if a stretch begins beyond the cursor. */
  #join() {
    for (; this.#held.length; this.#held.shift()) {
      const { from, to, events } = this.#held[0];
      if (compare(to, this.cursor) <= 0) continue;
      if (!(compare(from, this.cursor) <= 0)) return false;
      this.#take(events, to);
    }
    return true;
  }

  #take(events, to) {
    for (const event of events) {
      if (this.#closed) return;
      if (this.cursor && compare(event.id, this.cursor) <= 0) continue;
      this.cursor = event.id;
      if (this.topics.some((pattern) => matches(pattern, event.topic))) this.#call("onEvent", event);
    }
    if (this.#closed) return;
    this.cursor = to;
    if (this.#key) stored(() => (sessionStorage[this.#key] = to));
  }

  #show() {
    const { state, release } = this.#line;
    const joined = this.#covered && this.ready;
    const shown = this.#error ?? (joined || state.state !== "open" ? state : { state: "connecting" });
    const told = { ...shown, leader: Boolean(release), ...(this.#closed && { state: "closed" }) };
    if (same(told, this.#told)) return;
    this.#told = told;
    this.#call("onState", told);
  }

  #call(name, argument) {
    try {
      this.#on[name]?.(argument);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

function stored(use) {
  try {
    return use();
  } catch {}
}

const lines = {};

export class Tidings {
  constructor(url) {
    const { origin, pathname } = new URL(url, globalThis.document?.baseURI);
    this.url = origin + pathname.replace(/\/?$/, "/");
  }

  subscribe(topics, options = {}) {
    const line = (lines[this.url] ??= new Line(this.url));
    return new Subscription(line, [...new Set([topics].flat())], options);
  }

  /** Stores it once, however often it is sent. */
  async publish(topic, data, { event, ownId, key = random(), signal } = {}) {
    // Not to `topics/{topic}`: URL parsers remove the segments `.` and `..`.
    const body = JSON.stringify({ topic, data, event, own_id: ownId, idempotency_key: key });
    const headers = { "Content-Type": "application/json" };
    for (let tries = 1; ; tries++) {
      try {
        const response = await fetch(`${this.url}publish`, { method: "POST", headers, body, signal });
        return await (await check(response)).json();
      } catch (error) {
        if (error.problem || signal?.aborted || tries === PUBLISH_TRIES) throw error;
        await after(backoff(error.retryMs ?? 500, tries - 1));
      }
    }
  }
}
