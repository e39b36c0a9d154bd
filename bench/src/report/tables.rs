//! The report's text.

use super::{Cells, Key, median};
use crate::{meter::Record, plan::Workload};
use std::{collections::BTreeSet, fmt::Write};

/// Systems in the order of the report; others follow.
pub const SYSTEMS: [&str; 9] = [
    "etcd",
    "redis",
    "redis-wait",
    "redis-aof",
    "redis-aof-wait",
    "ring-sync",
    "chain-sync",
    "ring-os",
    "chain-os",
];

const HEAD: &str = "\
# Benchmark report

Written by `bench/run`; ratios to etcd and Redis are [below](#ratios). Every figure is the median of its rounds; in each round the
systems took turns. Servers and load generator share the machine.

- `etcd`: three nodes, linearizable reads. Pipelined: so many calls at once on one HTTP/2 connection.
- `redis`: a master and two replicas, no persistence. `redis-aof`: `appendfsync always` on all three. `-wait`: `WAIT 1` after each
  write, or after each batch that has a write where pipelined; the replica acknowledges what it has received. Reads are the
  master's own, which are not linearizable through a failover.
- `ring-sync`, `ring-os`: five nodes of this program with quorums, three replicas a key, `durability` `sync` or `os`. `chain-…`: the
  same with chains. `sync` compares with etcd and `redis-aof-wait`, `os` with `redis-wait`.
- Clients connect to all nodes of a ring and of etcd in turn. Redis protocol, pipelined: a batch of so many is sent once the last
  batch is answered; latency counts from the sending of the batch.
- Keys of 16 B, values of 100 B unless said otherwise, drawn uniformly or by Zipf's law. Every value read is compared with what was
  written to its key; operations that fail are counted apart and are in no rate and no percentile.
- In an open loop latency counts from when an operation was due, whether or not it could be sent then.

";

const HALF_PEAK: &str = "\
Open loop, 64 clients, half of the system's best closed-loop rate without pipelining. Where fewer operations are done than offered,
the system cannot do half of its peak steadily.";

const FAILOVER: &str = "\
Open loop over all keys, half reads and half writes, from 32 clients; the victim is killed (`kill -9`) or stopped (SIGSTOP) after two
seconds. Clients give a silent connection up after one second and go to the next server, of Redis to the one that the
Sentinels name (`down-after-milliseconds 1000`). etcd with its default times.

- *gap*: the longest time without a success of any client; with `≥` it had not ended when the run did.
- *slowest, others*: the slowest operation that ended on a connection to another server than the victim, failed ones included.
- *slowest*: of all; what was sent to the victim before the blow and never answered counts until its client gives up.";

const MICRO: &str = "One thread, nothing else running.";

const SIMULATION: &str = "\
The production actors on the harness' simulated network: messages between nodes for one operation, whoever takes it, one client a
node and no two on one key. Messages that nodes send without clients are taken off; they have a column of their own.";

/// A generator that needs more than this of its one processor may be what limits a rate.
const GENERATOR_BUSY: f64 = 0.9;

/// Tables of one figure of runs that vary in one setting.
const SWEEPS: [(&str, &str, &str); 4] = [
    ("sizes", "Size of values", "16 clients; `ring-sync`"),
    ("keys", "Number of keys", "64 clients; `ring-sync`"),
    ("clients", "Number of clients", "`ring-sync`"),
    (
        "cache",
        "More data than memory",
        "64 clients, `cache_bytes` 4 MiB beside the engine's own 32 MiB; `ring-sync`",
    ),
];

/// Figures that are no runs.
const FIGURES: [(&str, &str); 3] =
    [("start", "Start"), ("catch-up", "Catch-up"), ("cache", "More data than memory: resident")];

/// The whole report.
pub fn write(records: &[Record], cells: &Cells, plots: &[String]) -> String {
    let mut text = HEAD.to_owned();
    for record in records.iter().filter(|record| record.kind == "about") {
        line(&mut text, &format!("- {}", record.name.as_deref().unwrap_or_default()));
    }
    throughput(&mut text, cells);
    ratios(&mut text, cells);
    half_peak(&mut text, cells);
    failover(&mut text, cells);
    sweeps(&mut text, cells);
    memory(&mut text, records);
    for (kind, title) in FIGURES {
        figures(&mut text, records, kind, title);
    }
    simulation(&mut text, records);
    for micro in records.iter().filter(|record| record.kind == "micro") {
        let told = micro.name.as_deref().unwrap_or_default().trim();
        line(&mut text, &format!("\n## Micro-benchmarks\n\n{MICRO}\n\n```text\n{told}\n```"));
    }
    for plot in plots {
        line(&mut text, &format!("\n![{plot}]({plot})"));
    }
    errors(&mut text, records);
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn heading(text: &mut String, title: &str, columns: &[String]) {
    if !title.is_empty() {
        line(text, &format!("\n{title}"));
    }
    line(text, &format!("\n| {} |", columns.join(" | ")));
    line(text, &format!("|{}", "---|".repeat(columns.len())));
}

fn row(text: &mut String, cells: &[String]) {
    line(text, &format!("| {} |", cells.join(" | ")));
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Where a system stands in the report.
fn rank(system: &str) -> usize {
    SYSTEMS.iter().position(|known| *known == system).unwrap_or(SYSTEMS.len())
}

/// Systems of a kind of record, in the report's order.
pub fn systems(cells: &Cells, wanted: impl Fn(&Key) -> bool) -> Vec<&str> {
    let found: BTreeSet<_> = cells
        .keys()
        .filter(|key| wanted(key))
        .map(|key| (rank(&key.system), key.system.as_str()))
        .collect();
    found.into_iter().map(|(_, system)| system).collect()
}

/// 12345.6 → `12,346`
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn ms(micros: f64) -> String {
    let ms = micros / 1e3;
    match ms {
        _ if ms < 10.0 => format!("{ms:.2}"),
        _ if ms < 100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

fn name(workload: Option<Workload>) -> &'static str {
    match workload {
        Some(Workload::Write) => "writes",
        Some(Workload::Read) => "reads",
        Some(Workload::Mixed) => "half reads, half writes",
        Some(Workload::Zipf) => "half reads, half writes, Zipf 0.99",
        None => "-",
    }
}

/// Rate, latency and processor time: a table each for a workload and a depth of pipeline.
fn throughput(text: &mut String, cells: &Cells) {
    let of_kind = |key: &&Key| key.kind == "throughput";
    let groups: BTreeSet<_> =
        cells.keys().filter(of_kind).map(|key| (key.workload, key.pipeline)).collect();
    if groups.is_empty() {
        return;
    }
    line(text, "\n## Closed loop");
    if cells.values().any(|runs| runs.len() > 1) {
        let spread = spread(cells);
        line(text, &format!("\nRounds of one cell differ by up to {spread:.0} % of their median."));
    }
    line(
        text,
        "\nCPU: processor time of all server processes together and, after the plus, of the generator. A rate marked with \
         `*`: the generator used more than nine tenths of its processor, so the server may be able to do more.",
    );
    for (workload, pipeline) in groups {
        let here = |key: &Key| {
            key.kind == "throughput" && key.workload == workload && key.pipeline == pipeline
        };
        let clients: BTreeSet<_> =
            cells.keys().filter(|key| here(key)).map(|key| key.connections).collect();
        let deep = if pipeline > 1 { format!(", pipelined by {pipeline}") } else { String::new() };
        line(text, &format!("\n### {}{deep}", capital(name(workload))));
        let mut table = |what: &str, show: &dyn Fn(&[Record]) -> String| {
            let mut titles = vec![what.to_owned()];
            titles.extend(clients.iter().map(|clients| match clients {
                1 => "1 client".to_owned(),
                many => format!("{many} clients"),
            }));
            heading(text, "", &titles);
            for system in systems(cells, here) {
                let mut shown = vec![system.to_owned()];
                for count in &clients {
                    let mine =
                        |key: &&Key| here(key) && key.system == system && key.connections == *count;
                    let runs = cells.keys().find(mine).and_then(|key| cells.get(key));
                    shown.push(runs.map_or_else(|| "-".to_owned(), |runs| show(runs)));
                }
                row(text, &shown);
            }
        };
        table("operations/s", &rate);
        table("p50 / p99 / p99.9, ms", &latencies);
        table("CPU, µs an operation", &processor);
    }
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

fn rate(runs: &[Record]) -> String {
    let limited = median(runs, |run| run.generator_busy) > GENERATOR_BUSY;
    let mark = if limited { "*" } else { "" };
    format!("{}{mark}", thousands(median(runs, |run| run.ops_per_second)))
}

fn latencies(runs: &[Record]) -> String {
    let figures: [fn(&Record) -> f64; 3] = [|run| run.p50_us, |run| run.p99_us, |run| run.p999_us];
    figures.map(|figure| ms(median(runs, figure))).join(" / ")
}

fn processor(runs: &[Record]) -> String {
    let server = median(runs, |run| run.server_cpu_us.unwrap_or_default());
    let generator = median(runs, |run| run.generator_cpu_us);
    format!("{server:.1} + {generator:.1}")
}

/// The largest difference between rounds of one cell, in per cent of its median.
fn spread(cells: &Cells) -> f64 {
    let of_cell = |runs: &Vec<Record>| {
        let rates = || runs.iter().map(|run| run.ops_per_second);
        let (least, most) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
        100.0 * (most - least) / median(runs, |run| run.ops_per_second).max(1.0)
    };
    cells
        .iter()
        .filter(|(key, _)| key.kind == "throughput")
        .map(|(_, runs)| of_cell(runs))
        .fold(0.0, f64::max)
}

/// One figure of a run.
type Figure = fn(&Record) -> f64;

/// What each ring is compared with: the promise that comes nearest to its own.
fn rivals(system: &str, workload: Option<Workload>) -> Vec<&'static str> {
    let reads = workload == Some(Workload::Read);
    match (system, reads) {
        ("ring-sync" | "chain-sync", true) => vec!["etcd", "redis-aof"],
        ("ring-sync" | "chain-sync", false) => vec!["etcd", "redis-aof-wait"],
        ("ring-os" | "chain-os", true) => vec!["etcd", "redis"],
        ("ring-os" | "chain-os", false) => vec!["etcd", "redis-wait"],
        _ => vec![],
    }
}

/// A ring beside its rivals: the same runs, one figure divided by the other.
fn ratios(text: &mut String, cells: &Cells) {
    let compared: Vec<_> = cells
        .iter()
        .filter(|(key, _)| key.kind == "throughput")
        .flat_map(|(key, runs)| {
            let against = move |rival: &'static str| {
                let other = Key { system: rival.to_owned(), ..key.clone() };
                Some((key, runs, rival, cells.get(&other)?))
            };
            rivals(&key.system, key.workload).into_iter().filter_map(against)
        })
        .collect();
    if compared.is_empty() {
        return;
    }
    line(text, "\n## Ratios");
    let shapes: BTreeSet<_> =
        compared.iter().map(|(key, ..)| (key.pipeline, key.connections)).collect();
    let rows: BTreeSet<_> = compared
        .iter()
        .map(|(key, _, rival, _)| {
            (rank(&key.system), rank(rival), key.workload, &key.system, *rival)
        })
        .collect();
    let figures: [(&str, Figure); 3] = [
        ("operations/s: so many times the other's", |run| run.ops_per_second),
        ("p99: so many times the other's", |run| run.p99_us),
        ("CPU an operation: so many times the other's", |run| {
            run.server_cpu_us.unwrap_or(f64::NAN)
        }),
    ];
    for (title, figure) in figures {
        let mut titles = columns(&["system", "against", "operations"]);
        titles.extend(shapes.iter().map(|(deep, clients)| match deep {
            1 => format!("{clients} clients"),
            deep => format!("{clients} × {deep}"),
        }));
        heading(text, &format!("### {}", capital(title)), &titles);
        for (.., workload, system, rival) in &rows {
            let mut shown =
                vec![(*system).clone(), (*rival).to_owned(), name(*workload).to_owned()];
            for shape in &shapes {
                let found = compared.iter().find(|(key, _, other, _)| {
                    (key.pipeline, key.connections) == *shape
                        && (&key.system, key.workload, other) == (system, *workload, rival)
                });
                shown.push(found.map_or_else(
                    || "-".to_owned(),
                    |(_, runs, _, others)| {
                        format!("{:.2}", median(runs, figure) / median(others, figure))
                    },
                ));
            }
            row(text, &shown);
        }
    }
}

fn half_peak(text: &mut String, cells: &Cells) {
    let of_kind: Vec<_> = cells.iter().filter(|(key, _)| key.kind == "half-peak").collect();
    if of_kind.is_empty() {
        return;
    }
    let titles = columns(&[
        "system",
        "operations",
        "offered/s",
        "done/s",
        "p50 / p99 / p99.9, ms",
        "slowest, ms",
        "errors",
    ]);
    heading(text, &format!("## Half the peak load\n\n{HALF_PEAK}"), &titles);
    for system in systems(cells, |key| key.kind == "half-peak") {
        for (key, runs) in of_kind.iter().filter(|(key, _)| key.system == system) {
            row(
                text,
                &[
                    system.to_owned(),
                    name(key.workload).to_owned(),
                    thousands(median(runs, |run| run.offered)),
                    thousands(median(runs, |run| run.ops_per_second)),
                    latencies(runs),
                    ms(median(runs, |run| run.max_us)),
                    thousands(median(runs, |run| run.errors as f64)),
                ],
            );
        }
    }
}

fn failover(text: &mut String, cells: &Cells) {
    let of_kind: Vec<_> = cells.iter().filter(|(key, _)| key.kind == "failover").collect();
    let Some((_, [first, ..])) = of_kind.first().map(|(key, runs)| (key, runs.as_slice())) else {
        return;
    };
    let offered = format!("{} operations/s are offered. {FAILOVER}", thousands(first.offered));
    let titles = columns(&[
        "system",
        "blow",
        "victim",
        "gap, ms",
        "slowest, others, ms",
        "slowest, ms",
        "p99, ms",
        "failed, others",
        "failed",
    ]);
    heading(text, &format!("## Failover\n\n{offered}"), &titles);
    for system in systems(cells, |key| key.kind == "failover") {
        for (key, runs) in of_kind.iter().filter(|(key, _)| key.system == system) {
            row(
                text,
                &[
                    system.to_owned(),
                    key.blow.clone().unwrap_or_default(),
                    key.name.clone().unwrap_or_default(),
                    gap(runs),
                    ms(median(runs, |run| run.slowest_live_us)),
                    ms(median(runs, |run| run.max_us)),
                    ms(median(runs, |run| run.p99_us)),
                    thousands(median(runs, |run| run.errors_live as f64)),
                    thousands(median(runs, |run| run.errors as f64)),
                ],
            );
        }
    }
}

/// The longest time without a success; with `≥` where the run ended before there was one.
fn gap(runs: &[Record]) -> String {
    let mark = if runs.iter().any(|run| run.gap_at_end) { "≥ " } else { "" };
    format!("{mark}{}", ms(median(runs, |run| run.gap_us)))
}

fn sweeps(text: &mut String, cells: &Cells) {
    for (kind, title, what) in SWEEPS {
        let of_kind: Vec<_> =
            cells.iter().filter(|(key, _)| key.kind == kind && key.workload.is_some()).collect();
        if of_kind.is_empty() {
            continue;
        }
        let titles = columns(&[
            "operations",
            "clients",
            "keys",
            "value, B",
            "operations/s",
            "p50 / p99 / p99.9, ms",
            "CPU, µs an operation",
            "errors",
        ]);
        heading(text, &format!("## {title}\n\n{what}."), &titles);
        for (key, runs) in of_kind {
            row(
                text,
                &[
                    name(key.workload).to_owned(),
                    key.connections.to_string(),
                    thousands(key.keys as f64),
                    thousands(key.value_bytes as f64),
                    rate(runs),
                    latencies(runs),
                    processor(runs),
                    thousands(median(runs, |run| run.errors as f64)),
                ],
            );
        }
    }
}

fn memory(text: &mut String, records: &[Record]) {
    let of_kind: Vec<_> = records.iter().filter(|record| record.kind == "memory").collect();
    if of_kind.is_empty() {
        return;
    }
    let titles = columns(&["system", "server", "keys stored", "resident, MB", "MB a million keys"]);
    heading(
        text,
        "## Memory at rest\n\nResident memory of each server five seconds after the last write.",
        &titles,
    );
    for record in of_kind {
        row(
            text,
            &[
                record.system.clone(),
                record.name.clone().unwrap_or_default(),
                thousands(record.keys as f64),
                format!("{:.0}", record.value),
                format!("{:.0}", record.value / (record.keys.max(1) as f64 / 1e6)),
            ],
        );
    }
}

fn figures(text: &mut String, records: &[Record], kind: &str, title: &str) {
    let wanted = |record: &&Record| record.kind == kind && record.workload.is_none();
    let of_kind: Vec<_> = records.iter().filter(wanted).collect();
    if of_kind.is_empty() {
        return;
    }
    heading(text, &format!("## {title}"), &columns(&["system", "what", "figure"]));
    for record in of_kind {
        let name = record.name.clone().unwrap_or_default();
        let value = match record.value {
            large if large >= 1_000.0 => thousands(large),
            small => format!("{small}"),
        };
        row(text, &[record.system.clone(), name, format!("{value} {}", record.unit)]);
    }
}

/// Messages for an operation, by the number of nodes.
fn simulation(text: &mut String, records: &[Record]) {
    let of_kind: Vec<_> = records.iter().filter(|record| record.kind == "simulation").collect();
    let names: BTreeSet<_> = of_kind.iter().filter_map(|record| record.name.clone()).collect();
    let rows: BTreeSet<_> =
        of_kind.iter().map(|it| (rank(&it.system), it.system.clone(), it.keys)).collect();
    if rows.is_empty() {
        return;
    }
    let mut titles = columns(&["system", "nodes"]);
    titles.extend(names.iter().cloned());
    heading(text, &format!("## Ring size, simulated\n\n{SIMULATION}"), &titles);
    for (_, system, nodes) in rows {
        let mut shown = vec![system.clone(), nodes.to_string()];
        for name in &names {
            let mine = |it: &&&Record| {
                it.system == system && it.keys == nodes && it.name.as_ref() == Some(name)
            };
            let value = of_kind.iter().find(mine).map(|record| format!("{:.2}", record.value));
            shown.push(value.unwrap_or_else(|| "-".to_owned()));
        }
        row(text, &shown);
    }
}

/// What failed, so that no rate is taken for more than it is.
fn errors(text: &mut String, records: &[Record]) {
    let wanted = |record: &&Record| record.errors > 0 && record.kind != "failover";
    let failed: Vec<_> = records.iter().filter(wanted).collect();
    line(text, "\n## Errors");
    if failed.is_empty() {
        return line(text, "\nNo operation failed, the failover runs apart.");
    }
    line(text, "");
    for record in failed {
        let _ = writeln!(
            text,
            "- {} {}, {}, {} clients, pipeline {}, round {}: {} of {} failed, the first with `{}`",
            record.kind,
            record.system,
            name(record.workload),
            record.connections,
            record.pipeline,
            record.round,
            record.errors,
            record.operations + record.errors,
            record.error.as_deref().unwrap_or_default()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
