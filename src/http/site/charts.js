// Lines of the last two minutes, one a node.

import { svg } from "./text.js";

const WINDOW_MILLIS = 120_000;
// One point a second: the figures themselves are those of five.
const STEP_MILLIS = 1000;
const BOX = { left: 72, right: 592, top: 10, bottom: 146 };

/** The next 1, 2 or 5 times a power of ten. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Chart {
  /** `words` writes a value, `least` is the smallest height of the scale. */
  constructor(root, now, words, least) {
    Object.assign(this, { root, now, words, least });
    this.points = [];
  }

  /** A value for each node at this time; null where there is none. */
  add(time, nodes, values) {
    if (time - (this.points.at(-1)?.time ?? -Infinity) < STEP_MILLIS) return;
    this.points.push({ time, values });
    while (time - this.points[0].time > WINDOW_MILLIS) this.points.shift();
    this.draw(time, nodes);
  }

  draw(time, nodes) {
    const all = this.points.flatMap((each) => each.values).filter((value) => value !== null);
    const top = round(Math.max(this.least, ...all));
    const x = (at) => BOX.right - ((time - at) / WINDOW_MILLIS) * (BOX.right - BOX.left);
    const y = (value) => BOX.bottom - (value / top) * (BOX.bottom - BOX.top);
    const parts = [0, 0.5, 1].flatMap((part) => [
      svg("line", { x1: BOX.left, x2: BOX.right, y1: y(top * part), y2: y(top * part), class: "grid" }),
      svg("text", { x: BOX.left - 6, y: y(top * part) + 4, "text-anchor": "end", class: "axis" }, this.words(top * part)),
    ]);
    for (const [text, back, anchor] of [["2 min ago", WINDOW_MILLIS, "start"], ["1 min", WINDOW_MILLIS / 2, "middle"], ["now", 0, "end"]]) {
      parts.push(svg("text", { x: x(time - back), y: BOX.bottom + 16, "text-anchor": anchor, class: "axis" }, text));
    }
    nodes.forEach((_, index) => {
      let path = "", drawing = false;
      for (const point of this.points) {
        const value = point.values[index] ?? null;
        if (value !== null) path += `${drawing ? "L" : "M"} ${x(point.time).toFixed(1)} ${y(value).toFixed(1)} `;
        drawing = value !== null;
      }
      parts.push(svg("path", { d: path, class: `line c${index % 8}` }));
    });
    this.root.replaceChildren(...parts);
    this.legend(nodes);
  }

  legend(nodes) {
    const values = this.points.at(-1).values;
    while (this.now.childElementCount > nodes.length) this.now.lastChild.remove();
    nodes.forEach((node, index) => {
      const words = values[index] === null ? "–" : this.words(values[index]);
      let entry = this.now.children[index];
      if (!entry) this.now.append((entry = document.createElement("span")));
      entry.className = `swatch c${index % 8}`;
      const text = `${node.id}: ${words}`;
      if (entry.textContent !== text) entry.textContent = text;
    });
  }
}
