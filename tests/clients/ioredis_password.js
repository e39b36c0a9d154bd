// ioredis against a ring with a password: PASSWORD PORT…
"use strict";
const assert = require("node:assert/strict");
const Redis = require("ioredis");

const [password, port] = [process.argv[2], Number(process.argv[3])];

async function main() {
  const redis = new Redis(port, { password });
  assert.equal(await redis.set("io", "1"), "OK");
  await redis.quit();
  console.log("ok - ioredis with the password");

  // A wrong one: ioredis reports the failed AUTH as an event, the command fails.
  const stranger = new Redis(port, { password: "wrong", retryStrategy: null });
  stranger.on("error", () => {});
  await assert.rejects(stranger.get("io"), /NOAUTH|WRONGPASS|closed/);
  stranger.disconnect();
  console.log("ok - ioredis without the password");
}

main().catch((error) => {
  console.log(`not ok - ioredis password: ${String(error.message).replaceAll("\n", " ")}`);
  process.exitCode = 1;
});
