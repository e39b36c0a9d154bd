// A trace for Perfetto: `node perfetto.cjs FILE`, read with another program's reader of trace events.
//
// Perfetto's own reader is no package that comes without a download, so TracerBench's model is built of
// the file, and the rules it does not have are asserted: one array, times in whole microseconds, arrows
// with whole numbers that begin once, and each end of an arrow after the slice it lies in.
const assert = require('node:assert/strict');
const fs = require('node:fs');
const { buildModel } = require('@tracerbench/trace-model');

const events = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
assert(Array.isArray(events) && events.length > 0);
const model = buildModel(structuredClone(events));
assert(model.processes.length > 1);
for (const process of model.processes) assert.match(process.name, /^node \d+$/);

const slices = [];
const begun = new Set();
for (const event of events) {
  assert(Number.isInteger(event.ts) && event.ts >= 0, JSON.stringify(event));
  if (event.ph === 'X') slices.push(event);
  if (event.ph !== 's' && event.ph !== 'f') continue;
  assert(Number.isInteger(event.id));
  const holds = (slice) => slice.pid === event.pid && slice.tid === event.tid
    && slice.ts <= event.ts && event.ts <= slice.ts + slice.dur;
  assert(slices.some(holds), `an arrow outside a slice: ${JSON.stringify(event)}`);
  if (event.ph === 's') {
    assert(!begun.has(event.id), 'an arrow begins twice');
    begun.add(event.id);
  } else {
    assert(begun.has(event.id), 'an arrow ends that did not begin');
  }
}
assert(begun.size > 0);
console.log(`ok - trace events: ${events.length}, ${begun.size} arrows, ${model.processes.length} nodes`);
