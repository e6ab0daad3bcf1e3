// npm `ws` at a `/ws` URL: node ws.mjs URL
//
// A line of standard input, {"ref", "publish"}, is published.

import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { listen } from "./listen.mjs";

const client = listen(WebSocket, process.argv[2], (line) => console.log(JSON.stringify(line)));
for await (const line of createInterface({ input: process.stdin })) {
  const { ref, publish } = JSON.parse(line);
  client.publish(ref, publish);
}
process.exit(0);
