// The nodes as a table: the same as the ring for those who read it, and more figures.

import { el, micros, number, percent, say, size, span, standing } from "./text.js";

const COLUMNS = [
  ["Node", (node) => String(node.id)],
  ["State", (node) => `${standing(node.state).mark} ${node.state}`],
  ["For", (node) => span(node.since)],
  ["Share", (node) => percent(node.share)],
  ["Op/s", (node) => number(node.status?.load?.operations_per_second), "alive"],
  ["p50", (node) => micros(node.status?.load?.p50_micros), "alive"],
  ["p99", (node) => micros(node.status?.load?.p99_micros), "alive"],
  ["In flight", (node) => number(node.status?.in_flight), "alive"],
  ["Queue", (node) => number(node.status?.queued), "alive"],
  ["Sync p99", (node) => micros(node.status?.load?.sync_p99_micros), "alive"],
  ["Keys", (node) => number(node.status?.live)],
  ["On disk", (node) => (node.status ? size(node.status.disk_bytes) : "–")],
  ["Lag", (node) => lag(node), "alive"],
  ["Suspected by", (_, suspects) => suspects.join(" ") || "–"],
];

/** How far behind it is: level with the other replicas, or copying; and how long its answer took. */
function lag(node) {
  if (!node.status) return "–";
  const answer = `answers in ${micros(node.took)}`;
  return node.status.level ? `level, ${answer}` : `copying, ${number(node.status.copied)} so far, ${answer}`;
}

export class Nodes {
  constructor(root) {
    this.root = root;
    this.rows = new Map();
  }

  draw(nodes, me) {
    this.rows.clear();
    const head = el("tr", {}, ...COLUMNS.map(([title]) => el("th", { scope: "col" }, title)));
    const body = nodes.map((node, index) => {
      const cells = COLUMNS.map(([title], at) =>
        el(at === 0 ? "th" : "td", at === 0 ? { scope: "row", class: `swatch c${index % 8}` } : { "data-title": title }));
      const name = node.id === me ? el("strong", {}, String(node.id)) : el("a", { href: `http://${node.http}/` }, String(node.id));
      cells[0].append(name);
      const row = el("tr", { "data-node": node.id }, ...cells);
      this.rows.set(node.id, { row, cells });
      return row;
    });
    const caption = el("caption", {}, `The nodes in ring order, as node ${me} sees them. A number leads to that node’s own page.`);
    this.root.replaceChildren(el("table", {}, caption, el("thead", {}, head), el("tbody", {}, ...body)));
  }

  update(nodes, me) {
    if (nodes.length !== this.rows.size || nodes.some((node) => !this.rows.has(node.id))) this.draw(nodes, me);
    for (const node of nodes) {
      const { row, cells } = this.rows.get(node.id);
      const { kind } = standing(node.state);
      row.className = kind;
      row.dataset.state = node.state;
      row.title = node.error ?? "";
      // Only those that answer have an opinion that counts.
      const suspects = nodes
        .filter((other) => standing(other.state).kind !== "bad")
        .filter((other) => other.status?.nodes.some((seen) => seen.id === node.id && seen.standing === "suspected"))
        .map((other) => other.id);
      COLUMNS.forEach(([, words, alive], at) => {
        if (at > 0) say(cells[at], alive && kind === "bad" ? "–" : words(node, suspects));
      });
    }
  }
}
