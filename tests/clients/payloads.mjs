// GitHub's example webhooks, one JSON line each: {event, index, body}; the body is what GitHub would send.

import { createRequire } from "node:module";

const examples = createRequire(import.meta.url)("@octokit/webhooks-examples");

for (const { name, examples: payloads } of examples) {
  payloads.forEach((payload, index) => {
    console.log(JSON.stringify({ event: name, index, body: JSON.stringify(payload) }));
  });
}
