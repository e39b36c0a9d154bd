// ioredis against a ring: PORT…
"use strict";
const assert = require("node:assert/strict");
const Redis = require("ioredis");

const ports = process.argv.slice(2).map(Number);
let failures = 0;

// One line a check, as tests/clients/run reads them.
async function check(name, test) {
  try {
    await test();
    console.log(`ok - ioredis ${name}`);
  } catch (error) {
    failures += 1;
    console.log(`not ok - ioredis ${name}: ${String(error.message).replaceAll("\n", " ")}`);
  }
}

async function main() {
  const redis = new Redis(ports[0]);
  const other = new Redis(ports[3]);

  await check("set, get, incr, expire", async () => {
    assert.equal(await redis.set("io:a", "1", "EX", 1000), "OK");
    assert.equal(await other.get("io:a"), "1");
    assert.equal(await redis.incr("io:a"), 2);
    assert.equal(await redis.expire("io:a", 500), 1);
    const left = await other.ttl("io:a");
    assert.ok(left > 490 && left <= 500, String(left));
    assert.equal(await redis.set("io:a", "3", "NX"), null);
    assert.equal(await redis.call("SET", "io:a", "3", "IFEQ", "2"), "OK");
    assert.equal(await redis.del("io:a"), 1);
    assert.equal(await redis.get("io:a"), null);
  });

  await check("buffers", async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    await redis.set(Buffer.from([0, 13, 10, 255]), bytes);
    assert.deepEqual(await other.getBuffer(Buffer.from([0, 13, 10, 255])), bytes);
  });

  await check("pipeline", async () => {
    const pipeline = redis.pipeline();
    for (let i = 0; i < 300; i += 1) {
      pipeline.set(`io:p:${i % 30}`, i).get(`io:p:${i % 30}`);
    }
    const replies = await pipeline.exec();
    assert.equal(replies.length, 600);
    replies.forEach(([error, reply], at) => {
      assert.equal(error, null);
      assert.equal(reply, at % 2 ? String((at - 1) / 2) : "OK");
    });
  });

  await check("automatic pipelining", async () => {
    const auto = new Redis(ports[1], { enableAutoPipelining: true });
    const counts = await Promise.all(Array.from({ length: 200 }, () => auto.incr("io:auto")));
    assert.deepEqual(counts, Array.from({ length: 200 }, (_, i) => i + 1));
    await auto.quit();
  });

  await check("many keys and scanStream", async () => {
    const pairs = Array.from({ length: 40 }, (_, i) => [`io:s:${i}`, String(i)]);
    assert.equal(await redis.mset(new Map(pairs)), "OK");
    assert.deepEqual(await redis.mget(pairs.map(([key]) => key)), pairs.map(([, value]) => value));
    const found = new Set();
    for await (const keys of other.scanStream({ match: "io:s:*", count: 5 })) {
      keys.forEach((key) => found.add(key));
    }
    assert.deepEqual([...found].sort(), pairs.map(([key]) => key).sort());
  });

  await check("errors", async () => {
    await redis.set("io:text", "no number");
    await assert.rejects(redis.incr("io:text"), /not an integer/);
    await assert.rejects(redis.lpush("io:list", "1"), /unknown command/);
  });

  await check("key prefix and connection name", async () => {
    const named = new Redis(ports[4], { keyPrefix: "io:pre:", connectionName: "io" });
    await named.set("a", "1");
    assert.equal(await redis.get("io:pre:a"), "1");
    assert.equal(await named.client("GETNAME"), "io");
    await named.quit();
  });

  await Promise.all([redis.quit(), other.quit()]);
  process.exitCode = failures ? 1 : 0;
}

main();
