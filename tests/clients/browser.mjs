// Starts Debian's Chromium for the other scripts.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

/** Silent about everything but what it is told: no look-ups or downloads of its own. */
const FLAGS = [
  "--no-sandbox", // tests may run as root
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export async function launch(more = []) {
  const args = [...FLAGS, ...more];
  const browser = await chromium.launch({ executablePath: executable(), args, timeout: 120_000 });
  // At SIGTERM the browser is closed first, and then nothing else would end this process.
  browser.on("disconnected", die);
  return browser;
}

/** Ends this process, and well. */
export async function finish(browser) {
  browser.off("disconnected", die);
  await browser.close();
  process.exit(0);
}

const die = () => process.exit(1);

function executable() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const folder of process.env.PATH.split(delimiter)) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // not here
      }
    }
  }
  console.error("No Chromium on PATH. `make test` installs it; or set CHROMIUM to one.");
  process.exit(1);
}
