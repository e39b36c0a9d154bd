// The ring: nodes at their SHA-1, the parts they coordinate, and messages on their way.

import { number, say, standing, svg } from "./text.js";

const MIDDLE = [220, 180];
const RADIUS = 128;
// Dots alive at a time: enough to see a busy ring, few enough for a slow machine.
const DOTS_MAX = 80;
const TRAVEL_MILLIS = 650;
// Rows of labels on one side are at least so far apart.
const LABEL_HEIGHT = 34;

const at = (angle, radius = RADIUS) => {
  const turn = 2 * Math.PI * angle;
  return [MIDDLE[0] + radius * Math.sin(turn), MIDDLE[1] - radius * Math.cos(turn)];
};
const point = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function arc(from, to) {
  const part = (to - from + 1) % 1 || 1;
  if (part > 0.999) return `${arc(from, from + 0.5)} ${arc(from + 0.5, from + 0.999)}`;
  return `M ${point(at(from))} A ${RADIUS} ${RADIUS} 0 ${part > 0.5 ? 1 : 0} 1 ${point(at(to))}`;
}

/** Where labels go: beside the node, pushed apart where nodes are close. */
function labels(nodes) {
  const wanted = nodes.map((node) => {
    const [x, y] = at(node.angle, RADIUS + 26);
    return { right: x >= MIDDLE[0], x, y };
  });
  for (const right of [true, false]) {
    const side = wanted.filter((label) => label.right === right).sort((a, b) => a.y - b.y);
    side.forEach((label, index) => {
      if (index > 0) label.y = Math.max(label.y, side[index - 1].y + LABEL_HEIGHT);
    });
    const over = Math.max(0, (side.at(-1)?.y ?? 0) - 335);
    side.forEach((label) => (label.y -= over));
  }
  return wanted;
}

export class Ring {
  constructor(root) {
    this.root = root;
    this.nodes = new Map();
    this.dots = new Set();
    this.sent = new Map();
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.paused = false;
  }

  /** Draws what does not change: once, and when the set of nodes is another. */
  draw(nodes) {
    this.nodes.clear();
    this.root.replaceChildren();
    this.chords = svg("g");
    this.moving = svg("g", { "aria-hidden": "true" });
    this.keyMark = svg("g");
    const arcs = svg("g"), marks = svg("g");
    const places = labels(nodes);
    nodes.forEach((node, index) => {
      const before = nodes[(index + nodes.length - 1) % nodes.length].angle;
      arcs.append(svg("path", { d: arc(before, node.angle), class: `range c${index % 8}` }));
      const [x, y] = at(node.angle);
      const place = places[index];
      const anchor = place.right ? "start" : "end";
      const name = svg("text", { x: place.x, y: place.y, "text-anchor": anchor, class: "name" });
      const load = svg("text", { x: place.x, y: place.y + 14, "text-anchor": anchor, class: "load" });
      const line = svg("path", { class: "leader", d: `M ${point([x, y])} L ${point([place.x + (place.right ? -3 : 3), place.y - 4])}` });
      const dot = svg("circle", { cx: x, cy: y, r: 11, class: `node c${index % 8}` });
      const mark = svg("text", { x, y: y + 4.5, "text-anchor": "middle", class: "mark" });
      marks.append(line, dot, mark, name, load);
      this.nodes.set(node.id, { index, angle: node.angle, dot, mark, name, load });
    });
    this.root.append(arcs, this.chords, this.moving, this.keyMark, marks);
  }

  update(nodes) {
    if (nodes.length !== this.nodes.size || nodes.some((node) => !this.nodes.has(node.id))) this.draw(nodes);
    for (const node of nodes) {
      const drawn = this.nodes.get(node.id);
      const { mark, kind, words } = standing(node.state);
      drawn.dot.setAttribute("class", `node c${drawn.index % 8} ${kind}`);
      say(drawn.mark, mark);
      say(drawn.name, String(node.id));
      const rate = node.status?.load?.operations_per_second;
      say(drawn.load, kind === "good" ? `${number(rate)} op/s` : words);
      this.count(node);
    }
  }

  /** The messages a node has sent since it was last heard, as dots. */
  count(node) {
    if (standing(node.state).kind === "bad") return;
    for (const link of node.status?.links ?? []) {
      for (const [family, total] of Object.entries(link.sent)) {
        const name = `${node.id} ${link.to} ${family}`;
        const before = this.sent.get(name);
        this.sent.set(name, total);
        // A smaller count is that of a new life.
        if (before !== undefined && total > before) this.pulse(node.id, link.to, family, total - before);
      }
    }
  }

  pulse(from, to, family, messages) {
    const start = this.nodes.get(from), end = this.nodes.get(to);
    if (!start || !end || this.paused || document.hidden) return;
    if (this.still.matches) return this.flash(start, end, family);
    const dots = Math.min(3, Math.ceil(Math.log2(messages + 1) / 2));
    for (let i = 0; i < dots && this.dots.size < DOTS_MAX; i++) {
      const circle = svg("circle", { r: Math.min(2.5 + Math.log10(messages), 5), class: `dot ${family}` });
      this.dots.add({ circle, start, end, began: performance.now() + (250 * i) / dots + 40 * Math.random() });
    }
    if (!this.frame) this.frame = requestAnimationFrame((now) => this.move(now));
  }

  move(now) {
    for (const dot of this.dots) {
      const part = (now - dot.began) / TRAVEL_MILLIS;
      if (part < 0) continue;
      if (part >= 1) {
        dot.circle.remove();
        this.dots.delete(dot);
        continue;
      }
      // A curve bent towards the middle, so that both directions are told apart.
      const [a, b] = [at(dot.start.angle), at(dot.end.angle)];
      const [mx, my] = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
      const bend = [mx + (MIDDLE[0] - mx) * 0.35 - dy * 0.08, my + (MIDDLE[1] - my) * 0.35 + dx * 0.08];
      const q = (i) => (1 - part) ** 2 * a[i] + 2 * part * (1 - part) * bend[i] + part ** 2 * b[i];
      dot.circle.setAttribute("cx", q(0).toFixed(1));
      dot.circle.setAttribute("cy", q(1).toFixed(1));
      if (!dot.circle.parentNode) this.moving.append(dot.circle);
    }
    this.frame = this.dots.size ? requestAnimationFrame((then) => this.move(then)) : undefined;
  }

  /** Without motion: the line between both is there while messages pass. */
  flash(start, end, family) {
    const line = svg("path", { class: `chord ${family}`, d: `M ${point(at(start.angle))} L ${point(at(end.angle))}` });
    if (this.chords.childElementCount >= DOTS_MAX) return;
    this.chords.append(line);
    setTimeout(() => line.remove(), 1000);
  }

  /** Marks a key's place; none takes the mark away. */
  showKey(angle) {
    this.keyMark?.replaceChildren();
    if (angle === null || !this.keyMark) return;
    const [inner, outer] = [at(angle, RADIUS - 16), at(angle, RADIUS + 12)];
    this.keyMark.append(
      svg("path", { class: "key-mark", d: `M ${point(inner)} L ${point(outer)}` }),
      svg("text", { x: at(angle, RADIUS - 34)[0], y: at(angle, RADIUS - 34)[1] + 4, "text-anchor": "middle", class: "key-text" }, "key"),
    );
  }
}
