// npm `eventsource` on one stream: node eventsource.mjs URL

import { EventSource } from "eventsource";

const say = (line) => console.log(JSON.stringify(line));
const source = new EventSource(process.argv[2]);
source.onopen = () => say({ open: true });
source.onerror = () => say({ lost: true });
const message = (e) => say({ id: e.lastEventId, event: e.type, data: e.data });
for (const name of ["message", "tidings.gap", "tidings.close", "tidings.open", "tidings.heartbeat"]) {
  source.addEventListener(name, message);
}
