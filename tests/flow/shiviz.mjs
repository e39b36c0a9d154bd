// The rules by which ShiViz takes a log: `node shiviz.mjs FILE`.
//
// ShiViz is on no package registry, so its rules are written out here, after its sources
// (js/model/parser.js, js/model/vectorTimestamp.js, js/model/modelGraph.js): the first line is the
// regular expression, the second the delimiter of executions; every match has host, clock and event;
// a clock is a JSON object with its own host; the clocks of a host are 1, 2, 3, …; other hosts are known
// and so are their times; and each clock is what the events before it make of it.
import assert from 'node:assert/strict';
import fs from 'node:fs';

const [pattern, delimiter, ...rest] = fs.readFileSync(process.argv[2], 'utf8').split('\n');
for (const group of ['host', 'clock', 'event']) assert(pattern.includes(`(?<${group}>`), group);
assert.equal(delimiter.trim(), '');
const log = rest.join('\n').trim();
const events = [...log.matchAll(new RegExp(pattern, 'g'))].map(({ groups }) => ({
  host: groups.host, clock: JSON.parse(groups.clock), text: groups.event,
}));
assert(events.length > 0, 'the expression captures no events');
assert.equal(events.length * 2, log.split('\n').length, 'lines that no event took');

const hosts = new Map();
for (const event of events) {
  assert(event.clock[event.host] > 0, `own host missing: ${JSON.stringify(event)}`);
  if (!hosts.has(event.host)) hosts.set(event.host, []);
  hosts.get(event.host).push(event);
}
for (const [host, own] of hosts) {
  own.sort((a, b) => a.clock[host] - b.clock[host]);
  own.forEach((event, at) => assert.equal(event.clock[host], at + 1, `${host}: no gap`));
}
for (const event of events) {
  const expected = { [event.host]: event.clock[event.host] };
  const merge = (clock) => {
    for (const [host, time] of Object.entries(clock)) {
      expected[host] = Math.max(expected[host] ?? 0, time);
    }
  };
  const before = hosts.get(event.host)[event.clock[event.host] - 2];
  if (before) merge(before.clock);
  for (const [host, time] of Object.entries(event.clock)) {
    if (host === event.host || time === before?.clock[host]) continue;
    const parent = hosts.get(host)?.[time - 1];
    assert(parent, `${event.text}: no event ${time} of ${host}`);
    merge(parent.clock);
  }
  assert.deepEqual(event.clock, expected, `${event.text}: an impermissible clock`);
}
console.log(`ok - ShiViz's rules: ${events.length} events of ${hosts.size} hosts`);
