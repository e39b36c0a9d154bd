// The page: hears the ring from its node and tells every part.

import { Chart } from "./charts.js";
import { keyFinder } from "./keys.js";
import { Nodes } from "./nodes.js";
import { requests } from "./requests.js";
import { Ring } from "./ring.js";
import { el, micros, number, say, standing } from "./text.js";

// Silence of the stream, normally four words a second, after which the page says that it is old.
const SILENCE_MILLIS = 1000;
// A browser gives a stream up for good after an answer that is none; then it is opened anew.
const REOPEN_MILLIS = 1000;

const $ = (id) => document.getElementById(id);
const ring = new Ring($("ring"));
const nodes = new Nodes($("nodes"));
const throughput = new Chart($("throughput"), $("throughput-now"), number, 10);
const latency = new Chart($("latency"), $("latency-now"), micros, 1000);
keyFinder($("find"), $("found"), ring);

let view = null;
let heard = performance.now();
let paused = false;
const states = new Map();

function load(field) {
  return (node) => (standing(node.state).kind === "bad" ? null : (node.status?.load?.[field] ?? null));
}

function show() {
  ring.update(view.nodes);
  nodes.update(view.nodes, view.me);
  const now = performance.now();
  throughput.add(now, view.nodes, view.nodes.map(load("operations_per_second")));
  latency.add(now, view.nodes, view.nodes.map(load("p99_micros")));
  announce();
}

/** Tells changes of state to those who hear the page. */
function announce() {
  const changes = view.nodes
    .filter((node) => states.has(node.id) && states.get(node.id) !== node.state)
    .map((node) => `node ${node.id}: ${node.state}`);
  view.nodes.forEach((node) => states.set(node.id, node.state));
  if (changes.length) $("said").textContent = changes.join(", ");
}

function told(event) {
  const fresh = JSON.parse(event.data);
  heard = performance.now();
  if (paused) return;
  view = fresh;
  $("broken").hidden = true;
  say($("link"), `live, as node ${view.me} sees it`);
  document.title = `SimpleDynamo ${view.me}`;
  show();
}

/** The own node is silent: what is shown of all is old. */
function silent() {
  if (paused || performance.now() - heard < SILENCE_MILLIS || !$("broken").hidden) return;
  say($("link"), "no connection");
  const others = (view?.nodes ?? []).filter((node) => node.id !== view.me);
  $("broken").replaceChildren(
    view ? `Node ${view.me}, which serves this page, does not answer; what is shown is old. ` : "This node does not answer. ",
    ...(others.length ? ["Look from another: "] : []),
    ...others.flatMap((node) => [el("a", { href: `http://${node.http}/` }, String(node.id)), " "]),
  );
  $("broken").hidden = false;
  if (!view) return;
  for (const node of view.nodes) {
    node.state = node.id === view.me ? "no answer" : "unknown";
    node.since = 0;
    if (node.id !== view.me) node.error = "nobody tells";
  }
  show();
}

function listen() {
  const source = new EventSource("/view/ring");
  source.addEventListener("ring", told);
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, REOPEN_MILLIS);
  });
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  ring.paused = paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  say($("pause"), paused ? "Go on" : "Pause");
  if (paused) say($("link"), "paused");
});

requests($("asked"), () => paused);
listen();
setInterval(silent, SILENCE_MILLIS / 4);
