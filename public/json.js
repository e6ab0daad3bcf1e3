// JSON made readable without changing it: numbers and strings stay as they were written, which a trip
// through JSON.parse would not keep (1.0, 12345678901234567890, "\u00e9").

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
/** What fits into a line of so many characters stays on one line. */
const LINE_CHARS = 72;
/** Longer text stays as it is, as on a page that the hub renders. */
const TEXT_CHARS_MAX = 64 * 1024;
/** So does what has more brackets within each other: each puts two spaces before all lines within it. */
const DEPTH_MAX = 127;

/** The text indented, as `[kind, text]` pairs; null if it is no JSON object or array, or one too long or too deep. */
export function pretty(text) {
  if (text.length > TEXT_CHARS_MAX || !/^\s*[{[]/.test(text)) return null;
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const tokens = text.match(TOKEN);
  const widths = flatWidths(tokens);
  if (!widths) return null;
  const out = [];
  let depth = 0;
  let flat = 0; // how many of the open brackets are on one line with their contents
  const newline = () => out.push(["plain", "\n" + "  ".repeat(depth)]);
  tokens.forEach((token, at) => {
    const next = tokens[at + 1];
    if (token === "{" || token === "[") {
      depth += 1;
      out.push(["plain", token]);
      if (flat > 0 || 2 * depth + widths[at] <= LINE_CHARS) flat += 1;
      else newline();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      if (flat > 0) flat -= 1;
      else newline();
      out.push(["plain", token]);
    } else if (token === ",") {
      out.push(["plain", flat > 0 ? ", " : ","]);
      if (flat === 0) newline();
    } else if (token === ":") {
      out.push(["plain", ": "]);
    } else {
      out.push([kind(token, next), token]);
    }
  });
  return out;
}

function kind(token, next) {
  if (token[0] === '"') return next === ":" ? "key" : "string";
  return /^[-\d]/.test(token) ? "number" : "literal";
}

/** For each opening bracket, how many characters it and its contents are on one line. Null if they are too deep. */
function flatWidths(tokens) {
  const widths = [];
  const open = [];
  let width = 0;
  for (const [at, token] of tokens.entries()) {
    if ((token === "{" || token === "[") && open.push([at, width]) > DEPTH_MAX) return null;
    width += token === "," || token === ":" ? 2 : token.length;
    if (token === "}" || token === "]") {
      const [from, before] = open.pop();
      widths[from] = width - before;
    }
  }
  return widths;
}
