// The key finder: its place on the ring, and what its nodes store of it, side by side.

import { bytesOf, el, hexOf, number, shown, size, typed } from "./text.js";

function read(text, form) {
  if (form !== "hex") return typed(text);
  const digits = text.replace(/\s/g, "");
  if (!/^(?:[0-9a-fA-F]{2})+$/.test(digits)) throw new Error("hex digits come in pairs: 0 to 9, a to f");
  return bytesOf(digits);
}

function facts(pairs) {
  return el("dl", {}, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function stored(record) {
  if (!record) return [el("p", {}, "stores nothing of it")];
  const bytes = bytesOf(record.value);
  const cut = bytes.length < record.bytes ? `, the first ${number(bytes.length)} shown` : "";
  const pairs = [
    ["Version", number(record.version)],
    ["Ballot", record.ballot],
    ["Expires", record.expires_at === null ? "never" : new Date(record.expires_at).toISOString()],
    ["Size", record.deleted ? "–" : `${size(record.bytes)}${cut}`],
  ];
  const value = record.deleted ? el("p", {}, "deleted: the mark of it is kept") : el("pre", { tabindex: "0", "aria-label": "Value" }, shown(bytes));
  return [facts(pairs), value];
}

function card(replica, index) {
  const role = index === 0 ? "coordinates" : `successor ${index}`;
  const content = replica.error ? [el("p", { class: "bad" }, `not known: ${replica.error}`)] : stored(replica.stored);
  return el("article", { class: "card", "data-node": replica.node }, el("h3", {}, `${replica.node} `, el("small", {}, role)), ...content);
}

function verdict(found) {
  if (found.agree === null) return "Not all of its nodes answered.";
  if (!found.agree) return "Its nodes hold different versions just now: a write is under way, or one of them is behind.";
  return found.replicas.some((replica) => replica.stored) ? "All of its nodes hold the same version." : "None of its nodes stores anything of it.";
}

export function keyFinder(form, result, ring) {
  let asked = 0;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const mine = ++asked;
    try {
      const bytes = read(form.elements.key.value, form.elements.form.value);
      const answer = await fetch(`/view/key/${hexOf(bytes)}`);
      const text = await answer.text();
      if (mine !== asked) return;
      if (!answer.ok) throw new Error(text.trim());
      const found = JSON.parse(text);
      ring.showKey(found.angle);
      result.replaceChildren(
        el("p", {}, "Key ", el("code", { class: "bytes" }, shown(bytes)), ` is at ${(100 * found.angle).toFixed(2)} % of the ring, SHA-1 `, el("code", { class: "bytes" }, found.position), ". ", verdict(found)),
        el("div", { class: "cards" }, ...found.replicas.map(card)),
      );
    } catch (error) {
      if (mine !== asked) return;
      ring.showKey(null);
      result.replaceChildren(el("p", { class: "bad" }, `Not found out: ${error.message}`));
    }
  });
}
