// The nodes of a cluster, asked for every few seconds; a hub that is alone says so once, and the section stays away. What
// nodes say of themselves becomes text nodes only, never markup.

/** Nodes tell each other once a second how they stand. */
const ASK_EVERY_MS = 3000;
/** An answer that takes longer is none. */
const ANSWER_MAX_MS = 5000;

/** Keeps the section up to date for as long as the page is open. */
export async function watchCluster(section, url) {
  for (;;) {
    if (!document.hidden) {
      const cluster = await ask(url);
      if (cluster === null) return;
      if (cluster) show(section, cluster);
      // One that was never seen is not missed.
      section.dataset.stale = String(!cluster);
    }
    await new Promise((after) => setTimeout(after, ASK_EVERY_MS));
  }
}

/** The cluster; `null` if the hub is alone, `undefined` if it does not answer for now. */
export async function ask(url) {
  try {
    const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MAX_MS) });
    const cluster = response.ok ? await response.json() : undefined;
    if (!Array.isArray(cluster?.nodes)) return undefined;
    return cluster.nodes.length ? cluster : null;
  } catch {
    return undefined;
  }
}

/**
 * What is shown of a cluster: a line about the journal, and each node. The one that answered is the first of the answer;
 * here they are sorted, since behind a load balancer it is another one each time.
 */
export function describe({ journal, linked, nodes }) {
  const count = nodes.length === 1 ? "1 node" : `${nodes.length} nodes`;
  const shown = nodes.map((node, at) => ({
    id: String(node.id).slice(0, 8),
    address: String(node.address),
    own: at === 0,
    behind: node.lag_entries > 0,
    facts: [
      `version ${node.version}`,
      `at ${node.position}`,
      node.lag_entries > 0 ? `${many(node.lag_entries, "entry", "entries")} and ${node.lag_seconds} s behind` : "up to date",
      many(node.streams, "stream", "streams"),
    ].join(" · "),
  }));
  const key = ({ address, id }) => `${address} ${id}`;
  shown.sort((a, b) => (key(a) < key(b) ? -1 : 1));
  return { journal: `${count} on ${journal}${linked ? "" : ", which is not reached"}`, linked, nodes: shown };
}

const many = (count, one, several) => `${Number(count).toLocaleString("en")} ${count === 1 ? one : several}`;

function show(section, cluster) {
  const { journal, linked, nodes } = describe(cluster);
  const line = section.querySelector(".journal");
  line.textContent = journal;
  line.dataset.linked = String(linked);
  section.querySelector(".nodes").replaceChildren(...nodes.map(item));
  section.hidden = false;
}

function item({ id, address, own, behind, facts }) {
  const head = element("div", "node-head", element("span", "node-address", address));
  if (own) head.append(element("span", "chip", "this one"));
  head.append(element("span", "id", id));
  const made = element("li", "node", head, element("div", "node-facts", facts));
  made.dataset.behind = String(behind);
  return made;
}

function element(name, className, ...children) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}
