// The latest requests, and the story of one of them as a sequence diagram.

import { el, micros, say, svg } from "./text.js";

const REFRESH_MILLIS = 2000;
const ROWS_MAX = 30;
const COLUMN = 150, ROW = 26, TOP = 44, LEFT = 86;
const WORDS_MAX = 40;

const tried = (request) => request.attempts > 1 || (request.took !== null && request.outcome !== "done");
const ORDERS = {
  newest: (list) => list,
  slowest: (list) => list.filter((request) => request.took !== null).sort((a, b) => b.took - a.took),
  odd: (list) => list.filter(tried),
};

const clock = (unixMicros) => new Date(unixMicros / 1000).toISOString().slice(11, 23);
const outcome = (request) => (request.took === null ? "under way" : request.outcome);

function row(request, open) {
  const button = el("button", { type: "button", class: "plain" }, request.id);
  button.addEventListener("click", () => open(request.id));
  const cell = (title, text, kind) => el("td", { "data-title": title, class: kind }, text);
  return el("tr", { "data-request": request.id },
    el("th", { scope: "row" }, button),
    cell("At", clock(request.began)),
    cell("Command", request.command),
    cell("Key", el("code", { class: "bytes" }, request.key)),
    cell("Took", micros(request.took)),
    cell("Outcome", outcome(request), tried(request) ? "bad" : undefined),
    cell("Attempts", String(request.attempts || 1)));
}

/** A label as long as there is room for; the whole is in the words below the picture. */
const cut = (text) => (text.length > WORDS_MAX ? `${text.slice(0, WORDS_MAX - 1)}…` : text);

/** Where a label goes so that it covers no time and stays within the picture. */
function place(x, text, width) {
  const half = text.length * 3.4;
  return Math.max(Math.min(x, width - half - 4), LEFT + half);
}

function arrow(each, x, y, width) {
  const [from, to] = [x(each.from), x(each.to)];
  const lost = each.lost !== "";
  const back = to < from;
  const end = lost ? from + (to - from) * 0.6 : to + (back ? 4 : -4);
  const head = lost
    ? svg("path", { class: "cross", d: `M ${end - 5} ${y - 5} l 10 10 m 0 -10 l -10 10` })
    : svg("path", { class: "head", d: `M ${end} ${y} l ${back ? 8 : -8} -4 v 8 z` });
  const words = cut(lost ? `${each.label} lost: ${each.lost}` : each.label);
  return [
    svg("line", { x1: from, x2: end, y1: y, y2: y, class: lost ? "arrow lost" : "arrow" }),
    head,
    svg("text", { x: place((from + to) / 2, words, width), y: y - 5, "text-anchor": "middle", class: lost ? "words bad" : "words" }, words),
  ];
}

function note(each, x, y, width) {
  const words = cut(each.label);
  const half = words.length * 3.4 + 8;
  const middle = place(x(each.column), words, width);
  return [
    svg("rect", { x: middle - half, y: y - 16, width: 2 * half, height: 20, rx: 4, class: each.bad ? "note bad" : "note" }),
    svg("text", { x: middle, y: y - 2, "text-anchor": "middle", class: each.bad ? "words bad" : "words" }, words),
  ];
}

function sentence(each, columns) {
  const when = `after ${micros(each.at)}: `;
  if (each.row === "note") return `${when}${columns[each.column].label} ${each.label}`;
  const way = `${columns[each.from].label} to ${columns[each.to].label}: ${each.label}`;
  return when + (each.lost ? `${way}, lost: ${each.lost}` : way);
}

function draw(diagram) {
  const width = LEFT + COLUMN * diagram.columns.length;
  const height = TOP + ROW * (diagram.rows.length + 1);
  const x = (column) => LEFT + COLUMN * column + COLUMN / 2;
  const parts = diagram.columns.flatMap((column, index) => [
    svg("text", { x: x(index), y: 22, "text-anchor": "middle", class: "name" }, column.label),
    svg("line", { x1: x(index), x2: x(index), y1: 32, y2: height, class: "life" }),
  ]);
  diagram.rows.forEach((each, index) => {
    const y = TOP + ROW * (index + 0.8);
    parts.push(svg("text", { x: LEFT - 8, y, "text-anchor": "end", class: "axis" }, micros(each.at)));
    parts.push(...(each.row === "arrow" ? arrow(each, x, y, width) : note(each, x, y, width)));
  });
  return svg("svg", { class: "sequence", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Sequence diagram of request ${diagram.request}` }, ...parts);
}

function story(diagram) {
  const took = diagram.took === null ? "under way" : `${diagram.outcome} after ${micros(diagram.took)}`;
  const missing = diagram.missing.length ? [el("p", { class: "hint" }, `Not in the picture: ${diagram.missing.join("; ")}.`)] : [];
  return [
    el("h3", { tabindex: "-1" }, `${diagram.title || "Request"}: ${took} `, el("small", {}, diagram.request)),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Sequence diagram" }, draw(diagram)),
    ...missing,
    el("details", {}, el("summary", {}, "The same in words"), el("ol", {}, ...diagram.rows.map((each) => el("li", {}, sentence(each, diagram.columns))))),
  ];
}

export function requests(root, paused) {
  const [order, rows, empty, result] = ["order", "requests", "no-requests", "story"].map((id) => root.querySelector(`#${id}`));
  let latest = { requests: [], silent: [] };

  async function open(id) {
    try {
      const answer = await fetch(`/view/request/${encodeURIComponent(id)}`);
      if (!answer.ok) throw new Error((await answer.text()).trim());
      result.replaceChildren(...story(await answer.json()));
      result.querySelector("h3").focus();
    } catch (error) {
      result.replaceChildren(el("p", { class: "bad" }, `Not shown: ${error.message}`));
    }
  }

  function show() {
    const list = ORDERS[order.value]([...latest.requests]).slice(0, ROWS_MAX);
    const focused = document.activeElement?.closest?.("[data-request]")?.dataset.request;
    rows.replaceChildren(...list.map((request) => row(request, open)));
    if (focused) rows.querySelector(`[data-request="${CSS.escape(focused)}"] button`)?.focus({ preventScroll: true });
    empty.hidden = list.length > 0;
    const silent = latest.silent.length ? ` Of ${latest.silent.join(", ")} nothing is known: no answer.` : "";
    say(empty, `No such request in the nodes’ memory.${silent}`);
  }

  async function refresh() {
    if (!paused() && !document.hidden && !rows.matches(":hover")) {
      try {
        const answer = await fetch("/view/requests");
        if (answer.ok) latest = await answer.json();
        show();
      } catch {
        // The banner says already that the node is silent.
      }
    }
    setTimeout(refresh, REFRESH_MILLIS);
  }

  order.addEventListener("change", show);
  refresh();
}
