// Elements, numbers and bytes as people read them.
//
// Nothing here, or anywhere on the page, makes HTML of a string: text becomes text nodes, so a key
// or value cannot be taken for markup whatever its bytes are.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** An HTML element; strings among the children become text. */
export const el = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);

/** An SVG element. */
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** Sets text only where it changes, so that a reader's place and selection stay. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** 0, 7.3, 142, 12,345 */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const digits = value !== 0 && Math.abs(value) < 10 ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Microseconds as µs, ms or s. */
export function micros(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${Math.round(value)} µs`;
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e4 ? 1 : 0)} ms`;
  return `${(value / 1e6).toFixed(1)} s`;
}

/** Bytes as B, KiB, MiB, GiB. */
export function size(value) {
  let unit = 0;
  while (value >= 1024 && unit < 4) [value, unit] = [value / 1024, unit + 1];
  return `${value.toFixed(value < 10 && unit > 0 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** Milliseconds as a span of time. */
export function span(millis) {
  const seconds = Math.floor(millis / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export const percent = (part) => `${(100 * part).toFixed(1)} %`;

export const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

export const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));

/** Text with \xNN as bytes, or the reason why it is none. */
export function typed(text) {
  const bytes = [];
  for (let at = 0; at < text.length; ) {
    const escaped = /^\\(?:x([0-9a-fA-F]{2})|([\\nrt]))/.exec(text.slice(at, at + 4));
    if (text[at] === "\\" && !escaped) throw new Error("after a backslash comes x and two hex digits, n, r, t or a backslash");
    if (escaped?.[1]) bytes.push(parseInt(escaped[1], 16));
    else if (escaped) bytes.push({ "\\": 92, n: 10, r: 13, t: 9 }[escaped[2]]);
    if (escaped) {
      at += escaped[0].length;
      continue;
    }
    const character = String.fromCodePoint(text.codePointAt(at));
    bytes.push(...new TextEncoder().encode(character));
    at += character.length;
  }
  return Uint8Array.from(bytes);
}

const escapedByte = (byte) => `\\x${byte.toString(16).padStart(2, "0")}`;

/** Bytes as text: UTF-8 where it is that, everything invisible or ambiguous as \xNN. */
export function shown(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.replace(/\\|[\p{C}\p{Zl}\p{Zp}]/gu, (odd) =>
      odd === "\\" ? "\\\\" : Array.from(new TextEncoder().encode(odd), escapedByte).join(""));
  } catch {
    return Array.from(bytes, (byte) =>
      byte === 92 ? "\\\\" : byte >= 32 && byte < 127 ? String.fromCharCode(byte) : escapedByte(byte)).join("");
  }
}

/** A node's state in words, its mark (never colour alone), and its class. */
export function standing(state) {
  const known = {
    serving: ["●", "good"],
    learning: ["◐", "fair"],
    starting: ["◐", "fair"],
    unknown: ["…", "fair"],
    "no answer": ["○", "bad"],
    down: ["✕", "bad"],
  };
  const [mark, kind] = known[state] ?? ["?", "fair"];
  return { mark, kind, words: state };
}
