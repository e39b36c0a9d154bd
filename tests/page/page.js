// What a person sees on the page, asserted in a real browser. Called by `run`:
//
//   node page.js RING SCREENSHOTS CLIENT PEER HTTP CLIENT PEER HTTP …
//
// Times are judged here on purpose: that a killed node is shown within a second is what the page promises.
// They are measured inside the browser, from the moment the process is gone or answers again.

const { execFileSync } = require("child_process");
const fs = require("fs");
const path = require("path");
const puppeteer = require("puppeteer-core");

const [ring, shots, ...ports] = process.argv.slice(2);
const dynamo = (...args) => execFileSync(process.env.DYNAMO, args, { cwd: ring, encoding: "utf8" });
const redis = (...args) => execFileSync("redis-cli", ["-p", ports[0], ...args], { encoding: "utf8" }).trimEnd();
const IDS = [5554, 5556, 5558, 5560, 5562];
const http = (index) => `http://127.0.0.1:${ports[3 * index + 2]}/`;
const HOSTILE = '<img src=x onerror="document.title=\'owned\'">';
const sleep = (millis) => new Promise((done) => setTimeout(done, millis));

let passed = 0, failed = 0;
const complaints = [];
// Complaints of the browser about a node that is gone are expected while one is.
let expected = false;

function is(what, ok, detail = "") {
  ok ? passed++ : failed++;
  console.log(`${ok ? "ok" : "not ok"} - ${what}${ok && !detail ? "" : ` ${detail}`}`);
}

async function check(what, test) {
  try {
    const detail = await test();
    is(what, true, detail ?? "");
  } catch (error) {
    is(what, false, `: ${error.message}`);
  }
}

function assert(ok, why) {
  if (!ok) throw new Error(why);
}

const state = (page, id) => page.$eval(`#nodes tr[data-node="${id}"]`, (row) => row.dataset.state);
const becomes = (page, id, wanted, timeout) =>
  page.waitForFunction((id, wanted) => wanted.includes(document.querySelector(`#nodes tr[data-node="${id}"]`)?.dataset.state),
    { timeout, polling: 20 }, id, wanted);

async function shot(page, name, whole = true) {
  await page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: whole });
}

async function find(page, key, form = "text") {
  await page.$eval("#key", (input) => (input.value = ""));
  await page.select("#form", form);
  await page.type("#key", key);
  await page.keyboard.press("Enter");
  await page.waitForFunction((key) => document.querySelector("#found")?.textContent.includes(key), {}, form === "text" ? key : "SHA-1");
}

async function open(browser, index, options = {}) {
  const page = await browser.newPage();
  await page.setViewport({ width: options.width ?? 1280, height: 900 });
  await page.emulateMediaFeatures([
    { name: "prefers-color-scheme", value: options.scheme ?? "light" },
    { name: "prefers-reduced-motion", value: options.motion ?? "no-preference" },
  ]);
  const complain = (text) => { if (!expected) complaints.push(text); };
  page.on("console", (message) => ["error", "warn"].includes(message.type()) && complain(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complain(`exception: ${error.message}`));
  page.on("requestfailed", (request) => complain(`failed: ${request.url()} ${request.failure()?.errorText}`));
  // A page that was closed has nothing more to say.
  await page.goto(http(index), { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => document.querySelectorAll('#nodes tr[data-state="serving"]').length === 5, { timeout: 10_000 });
  return page;
}

async function close(page) {
  expected = true;
  await page.close();
  expected = false;
}

/** Elements wider than the page, and whether the page scrolls sideways. */
const tooWide = (page) => page.evaluate(() => {
  const width = document.documentElement.clientWidth;
  const inside = (node) => node.closest(".scroll, .skip, .unseen, thead, svg");
  const wide = [...document.body.querySelectorAll("*")].filter((node) => !inside(node) && node.getBoundingClientRect().right > width + 1);
  return { scrolls: document.documentElement.scrollWidth > width, wide: wide.map((node) => node.tagName + "." + node.className) };
});

/** The smallest contrast of text to its ground, of what is seen. */
const contrast = (page) => page.evaluate(() => {
  const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  for (const node of document.querySelectorAll("h1,h2,h3,p,td,th,a,button,label,figcaption,caption,code,dt,dd,small,summary,.now span")) {
    if (!node.textContent.trim() || node.closest("[hidden], .unseen, .skip")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least[0]) least = [ratio, `${node.tagName} "${node.textContent.trim().slice(0, 30)}"`];
  }
  return least;
});

async function looks(browser) {
  const page = await open(browser, 0);
  await check("all nodes are shown, in ring order", async () => {
    const rows = await page.$$eval("#nodes tr[data-node]", (rows) => rows.map((row) => Number(row.dataset.node)));
    assert(rows.join() === "5562,5556,5554,5558,5560", rows.join());
    const names = await page.$$eval("#ring .name", (names) => names.map((name) => name.textContent));
    assert(IDS.every((id) => names.includes(String(id))), names.join());
  });
  await check("messages move", () => page.waitForSelector("#ring .dot", { timeout: 5000 }).then(() => ""));
  await check("charts draw lines", () =>
    page.waitForFunction(() => [...document.querySelectorAll("#throughput .line, #latency .line")].filter((line) => line.getAttribute("d").length > 40).length >= 2, { timeout: 20_000 }).then(() => ""));
  await check("the load is a number", async () => {
    const text = await page.$eval("#throughput-now", (now) => now.textContent);
    assert(/5554: [\d,.]+/.test(text) && !/5554: 0(\D|$)/.test(text), text);
  });
  return page;
}

async function keys(page) {
  await check("the key finder shows three versions side by side", async () => {
    redis("set", "greeting", "hello");
    await find(page, "greeting");
    const cards = await page.$$eval("#found .card", (cards) => cards.map((card) => [card.dataset.node, card.querySelector("pre")?.textContent]));
    assert(JSON.stringify(cards) === '[["5558","hello"],["5560","hello"],["5562","hello"]]', JSON.stringify(cards));
    assert((await page.$eval("#found", (found) => found.textContent)).includes("All of its nodes hold the same version"), "no agreement");
    await page.waitForSelector("#ring .key-mark");
  });
  await check("a hostile key and value are text", async () => {
    redis("set", HOSTILE, `${HOSTILE}</pre><script>document.title='owned'</script>`);
    await find(page, HOSTILE);
    const value = await page.$eval("#found .card pre", (pre) => pre.textContent);
    assert(value.startsWith(HOSTILE) && value.includes("<script>"), value);
    assert((await page.$("#found img, #found script")) === null, "it became an element");
  });
  await check("bytes that are no text are escaped", async () => {
    execFileSync("redis-cli", ["-p", ports[0], "-x", "set", "bytes"], { input: Buffer.from([0, 0xff, 0x1b, 0x5b, 0x41]) });
    await find(page, "bytes");
    const value = await page.$eval("#found .card pre", (pre) => pre.textContent);
    assert(value === "\\x00\\xff\\x1b[A", value);
  });
  await check("hex and escapes name the same key", async () => {
    await find(page, "6279746573", "hex");
    assert((await page.$$eval("#found .card pre", (all) => all.length)) === 3, "no values");
    await find(page, "bytes");
  });
  await check("a wrong key is explained", async () => {
    await page.$eval("#key", (input) => (input.value = "a\\q"));
    await page.click("#find button");
    await page.waitForFunction(() => document.querySelector("#found .bad")?.textContent.includes("backslash"));
  });
}

async function story(page) {
  // The list holds the newest requests: those of the load would push ours out in no time.
  process.kill(Number(process.env.LOAD_PID), "SIGSTOP");
  await check("the request list holds what was asked, hostile key as text", async () => {
    redis("set", HOSTILE, "again");
    await page.mouse.move(0, 0);
    await page.waitForFunction((key) => [...document.querySelectorAll("#requests code")].some((code) => code.textContent.includes(key)), { timeout: 10_000 }, "<img src=x");
    assert((await page.$("#requests img")) === null, "it became an element");
  });
  await check("a request opens as a sequence diagram", async () => {
    await page.evaluate(() => [...document.querySelectorAll("#requests tr")].find((row) => row.textContent.includes("<img")).querySelector("button").focus());
    await page.keyboard.press("Enter");
    await page.waitForSelector("#story svg.sequence", { timeout: 5000 });
    const words = await page.$$eval("#story li", (all) => all.map((each) => each.textContent).join("\n"));
    assert(/Accept /.test(words) && /Accepted /.test(words) && /chosen/.test(words), words);
    assert((await page.$("#story img")) === null, "it became an element");
  });
  process.kill(Number(process.env.LOAD_PID), "SIGCONT");
}

async function motion(browser) {
  const page = await open(browser, 1, { motion: "reduce" });
  await check("with reduced motion nothing moves", async () => {
    await page.waitForSelector("#ring .chord", { timeout: 5000 });
    assert((await page.$("#ring .dot")) === null, "a dot moves");
  });
  await close(page);
}

async function sizes(browser) {
  for (const scheme of ["light", "dark"]) {
    const page = await open(browser, 0, { width: 400, scheme });
    await find(page, "greeting");
    await check(`400 px, ${scheme}: nothing is wider than the page`, async () => {
      const { scrolls, wide } = await tooWide(page);
      assert(!scrolls && wide.length === 0, `${scrolls} ${wide.join(" ")}`);
    });
    await check(`${scheme}: text stands out from its ground, 4.5 to 1 at least`, async () => {
      const [least, where] = await contrast(page);
      assert(least >= 4.5, `${least.toFixed(2)} at ${where}`);
      return `(least ${least.toFixed(1)})`;
    });
    await sleep(1500);
    await shot(page, `narrow-${scheme}`);
    await close(page);
  }
}

async function keyboard(browser) {
  const page = await open(browser, 0);
  await check("everything can be reached by keyboard, with a name", async () => {
    const seen = [];
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const node = document.activeElement;
        return [node.id || node.tagName, (node.labels?.[0]?.textContent || node.getAttribute("aria-label") || node.textContent).trim(), getComputedStyle(node).outlineStyle];
      });
      if (at[0] === "BODY") break;
      assert(at[1] !== "", `${at[0]} has no name`);
      assert(at[2] !== "none", `${at[0]} does not show that it has the focus`);
      seen.push(at[0]);
    }
    for (const wanted of ["pause", "key", "form", "order"]) assert(seen.includes(wanted), `${wanted} is not in ${seen.join(" ")}`);
  });
  await check("the page can be paused", async () => {
    await page.focus("#pause");
    await page.keyboard.press("Space");
    assert((await page.$eval("#pause", (button) => button.getAttribute("aria-pressed"))) === "true", "not pressed");
    await page.keyboard.press("Space");
  });
  await close(page);
}

async function faults(page) {
  const pid = Number(fs.readFileSync(path.join(ring, "data/5558/pid"), "utf8").split(/\s/)[0]);
  process.kill(pid, "SIGKILL");
  const killed = Date.now();
  await check("a killed node is shown as down within 1 s", async () => {
    await becomes(page, 5558, ["down"], 3000);
    const took = Date.now() - killed;
    assert(took <= 1000, `${took} ms`);
    return `(${took} ms)`;
  });
  await check("those who hear the page are told", () =>
    page.waitForFunction(() => document.querySelector("#said").textContent.includes("node 5558: down")).then(() => ""));
  redis("set", "greeting", "while 5558 is down");
  await check("the others suspect it", () =>
    page.waitForFunction(() => document.querySelector('#nodes tr[data-node="5558"] td[data-title="Suspected by"]').textContent !== "–", { timeout: 5000 }).then(() => ""));
  await check("the key finder says which node is not known", async () => {
    await find(page, "greeting");
    await page.waitForFunction(() => document.querySelector('#found .card[data-node="5558"] .bad'));
  });
  await sleep(1200);
  await shot(page, "down");
  dynamo("start", "5558");
  const back = Date.now();
  await check("its recovery is shown within 2 s", async () => {
    await becomes(page, 5558, ["serving"], 5000);
    const took = Date.now() - back;
    assert(took <= 2000, `${took} ms`);
    return `(${took} ms after it answered)`;
  });
  dynamo("pause", "5560");
  const paused = Date.now();
  await check("a paused node is shown as silent within 1 s", async () => {
    await becomes(page, 5560, ["no answer"], 3000);
    const took = Date.now() - paused;
    assert(took <= 1000, `${took} ms`);
    return `(${took} ms)`;
  });
  dynamo("resume", "5560");
  await check("and goes on within 2 s", () => becomes(page, 5560, ["serving"], 2000).then(() => ""));
}

async function own(browser) {
  const page = await open(browser, 4);
  expected = true;
  dynamo("kill", "5562");
  await check("the page says when its own node is gone", async () => {
    await page.waitForFunction(() => !document.querySelector("#broken").hidden, { timeout: 3000 });
    const links = await page.$$eval("#broken a", (links) => links.map((link) => link.textContent));
    assert(links.length === 4, links.join());
  });
  await shot(page, "own-node-gone");
  dynamo("start", "5562");
  await check("and goes on by itself when it is back", async () => {
    await becomes(page, 5562, ["serving"], 5000);
    assert(await page.$eval("#broken", (broken) => broken.hidden), "the banner stays");
  });
  await page.close();
  expected = false;
}

(async () => {
  const browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM,
    headless: true,
    // Chromium's own sandbox needs rights that containers do not give; everything it loads is ours.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  try {
    const page = await looks(browser);
    await keys(page);
    await story(page);
    await sleep(2000);
    await shot(page, "wide-light");
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    await shot(page, "wide-dark");
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
    await motion(browser);
    await sizes(browser);
    await keyboard(browser);
    await faults(page);
    await close(page);
    await own(browser);
    is("nothing was complained about on the console", complaints.length === 0, complaints.slice(0, 5).join(" | "));
  } catch (error) {
    is("the run itself", false, `: ${error.stack}`);
  } finally {
    await browser.close();
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
})();
