// What programs in TypeScript do with the browser client, and what its types refuse.

import { Refused, Tidings, backoff, compare, matches } from "tidings-client";
import type { Gap, State, SubscribeOptions, Subscription, TidingsEvent } from "tidings-client";

const hub = new Tidings(new URL("https://hub.example.com/"));
const url: string = hub.url;

const seen: string[] = [];
const options: SubscribeOptions = {
  onEvent: ({ topic, id, own_id, event, time, data }: TidingsEvent) =>
    seen.push(topic, id, own_id ?? "", event ?? "", time, data),
  onGap: ({ reason, requested, oldest, missed }: Gap) => seen.push(reason, requested, oldest ?? "", `${missed ?? "?"}`),
  onState({ state, leader, via, reason, retryMs, problem }: State) {
    if (state === "refused") seen.push(problem?.detail ?? reason ?? "", via ?? "", `${leader} ${(retryMs ?? 0) / 1000} s`);
  },
  after: "fe-1",
  since: "10m",
  tail: 20,
  resume: false,
};
const subscription: Subscription = hub.subscribe(["orders/*", "alerts"], options);
hub.subscribe("alerts");
const cursor: string | undefined = subscription.cursor;
subscription.topics.forEach((topic) => seen.push(topic, cursor ?? url));
subscription.close();

try {
  const { signal } = new AbortController();
  const published = await hub.publish("orders/42", { paid: true }, { event: "paid", ownId: "42", key: "k", signal });
  seen.push(published.id, published.topic, published.duplicate ? "again" : "once");
} catch (error) {
  if (error instanceof Refused) seen.push(`${error.status}`, error.problem.type ?? "", error.message);
}
seen.push(`${matches("a/*", "a/b") && compare("fe-1", "fe-2") < 0} ${backoff(2000, 1) + backoff(2000, 1, 0.5)}`);

// @ts-expect-error: there is no hub without a URL.
new Tidings();
// @ts-expect-error: the client keeps it.
subscription.cursor = "fe-2";
// @ts-expect-error: it ends up as an option that nobody reads.
hub.subscribe("a", { onMessage: () => {} });
// @ts-expect-error: data is always a string.
hub.subscribe("a", { onEvent: ({ data }) => data.paid });
// @ts-expect-error: there may be no problem.
hub.subscribe("a", { onState: ({ problem }) => problem.detail });
// @ts-expect-error: such a state does not exist.
hub.subscribe("a", { onState: ({ state }) => state === "closing" });
// @ts-expect-error: JSON has no words for it.
hub.publish("a", undefined);
