/** A hub, by the URL at which its page is: `https://hub.example.com/`, or a path of the page's own origin. */
export class Tidings {
  constructor(url: string | URL);

  /** The hub's URL, absolute, with a slash at its end. */
  readonly url: string;

  /** Listens to topics and patterns: `*` is one segment, a final `**` is one or more. */
  subscribe(topics: string | readonly string[], options?: SubscribeOptions): Subscription;

  /**
   * Publishes one event. It is sent again after a failure that may pass, and stored once all the same.
   *
   * Rejects with `Refused` if the hub says no, with another error if it could not be reached in a few tries.
   */
  publish(topic: string, data: Json, options?: PublishOptions): Promise<Published>;
}

export interface Subscription {
  readonly topics: readonly string[];
  /** Up to there, everything was handed to `onEvent`. Undefined before the hub's first answer. */
  readonly cursor: string | undefined;
  /** Ends it, and forgets its cursor. */
  close(): void;
}

export interface SubscribeOptions {
  /** Called for each event once, in the log's order. */
  onEvent?(event: TidingsEvent): void;
  /** Called where events are missing, in their place. */
  onGap?(gap: Gap): void;
  /** Called when the state is another one. */
  onState?(state: State): void;
  /** Starts after this cursor, or after the event of this own id. It counts before one that is kept. */
  after?: string;
  /** Starts in the past: `"10m"`, an RFC 3339 time, or `"earliest"`. */
  since?: string;
  /** Starts with so many of the newest events. Without any start, only new events come. */
  tail?: number;
  /** Whether a reload of the tab goes on where it was: true, unless it is said otherwise. */
  resume?: boolean;
}

/** An event, as the hub has it. */
export interface TidingsEvent {
  topic: string;
  /** Its cursor. */
  id: string;
  /** The publisher's own id for it. */
  own_id: string | null;
  /** Its name. */
  event: string | null;
  /** When it was stored, in RFC 3339. */
  time: string;
  data: string;
}

export interface Gap {
  reason: "expired" | "lagged" | "unknown" | "epoch" | "corrupt";
  /** The cursor after which events are missing. */
  requested: string;
  /** The oldest event that is kept. */
  oldest: string | null;
  /** How many are missing, if the hub can tell. */
  missed: number | null;
}

export interface State {
  /**
   * - `connecting`: it has not caught up yet.
   * - `open`: events come as they are published.
   * - `waiting`: the hub cannot be reached; it is tried again in `retryMs`.
   * - `refused`: the hub says no, as `problem` tells. It is not tried again.
   * - `closed`: by `close()`.
   */
  state: "connecting" | "open" | "waiting" | "refused" | "closed";
  /** Whether this tab has the connection that all share. */
  leader: boolean;
  /** `poll` where a proxy holds streams back. */
  via?: "stream" | "poll";
  reason?: string;
  retryMs?: number;
  problem?: Problem;
}

export interface PublishOptions {
  /** The event's name. */
  event?: string;
  /** Your own id for it. */
  ownId?: string;
  /** The idempotency key: the same one publishes nothing twice within 24 hours. A random one unless given. */
  key?: string;
  signal?: AbortSignal;
}

export interface Published {
  id: string;
  topic: string;
  /** Whether the key had been used: `id` is the first event's. */
  duplicate: boolean;
}

/** RFC 9457. */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
}

/** The hub says no: to try again cannot help. */
export class Refused extends Error {
  readonly status: number;
  readonly problem: Problem;
}

/** What JSON can say, but for `null` itself. */
export type Json = string | number | boolean | object;

/** Whether a topic or pattern selects a topic. */
export function matches(pattern: string, topic: string): boolean;

/** Below 0 if cursor `a` is before `b`, 0 if it is `b`, above 0 if it is after; NaN if their epochs differ. */
export function compare(a: string, b: string): number;

/** How long to wait before the next try, in milliseconds. */
export function backoff(baseMs: number, failures: number, random?: number): number;
