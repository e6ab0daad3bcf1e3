// JSON made readable without changing it: numbers and strings stay as they were written, which a trip
// through JSON.parse would not keep (1.0, 12345678901234567890, "\u00e9").

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
/** What fits into a line of so many characters stays on one line. */
const LINE_CHARS = 72;

/** The text indented, as `[kind, text]` pairs, or null if it is not a JSON object or array. */
export function pretty(text) {
  if (!/^\s*[{[]/.test(text)) return null;
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const tokens = text.match(TOKEN);
  const widths = flatWidths(tokens);
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

/** For each opening bracket, how many characters it and its contents are on one line. */
function flatWidths(tokens) {
  const widths = [];
  const open = [];
  let width = 0;
  tokens.forEach((token, at) => {
    if (token === "{" || token === "[") open.push([at, width]);
    width += token === "," || token === ":" ? 2 : token.length;
    if (token === "}" || token === "]") {
      const [from, before] = open.pop();
      widths[from] = width - before;
    }
  });
  return widths;
}
