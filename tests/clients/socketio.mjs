// npm `socket.io-client` 4 and 2: node socketio.mjs
//
// One process for any number of clients: the commands of socketio_driver.mjs, one JSON object per line of standard input. The
// end of standard input ends it.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { driver } from "./socketio_driver.mjs";

const require = createRequire(import.meta.url);
const ios = { 4: require("socket.io-client").io, 2: require("socket.io-client-2") };
const say = (line) => console.log(JSON.stringify(line));
const run = driver(ios, say);

say({ client: "", ready: true });
for await (const line of createInterface({ input: process.stdin })) run(JSON.parse(line));
process.exit(0);
