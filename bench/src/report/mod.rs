//! Records → report: medians of rounds, tables, plots.
//!
//! A cell is all runs of one kind that differ in nothing but the round; every figure of the report is the
//! median over them.

mod plots;
mod tables;

use crate::{meter::Record, plan::Workload};
use std::{collections::BTreeMap, fs, io, path::Path};
pub use tables::thousands;

/// What makes runs comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: String,
    pub workload: Option<Workload>,
    pub pipeline: usize,
    pub connections: usize,
    pub value_bytes: usize,
    pub keys: u64,
    pub system: String,
    pub blow: Option<String>,
    pub name: Option<String>,
}

/// The runs of a cell, by key.
pub type Cells = BTreeMap<Key, Vec<Record>>;

/// The median of one figure over runs; 0 for none.
pub fn median(runs: &[Record], figure: impl Fn(&Record) -> f64) -> f64 {
    let mut all: Vec<_> = runs.iter().map(figure).collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => all[middle],
        _ => f64::midpoint(all[middle - 1], all[middle]),
    }
}

/// All records of a file. A last line that is cut off, by whatever ended the run, is left out.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = fs::read_to_string(path)?;
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| io::Error::other(format!("{}:{}: {error}", path.display(), at + 1)))
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().enumerate().map(line).collect()
}

fn cells(records: &[Record]) -> Cells {
    let mut cells = Cells::new();
    for record in records {
        let key = Key {
            kind: record.kind.clone(),
            workload: record.workload,
            pipeline: record.pipeline,
            connections: record.connections,
            value_bytes: record.value_bytes,
            keys: record.keys,
            system: record.system.clone(),
            blow: record.blow.clone(),
            name: record.name.clone(),
        };
        cells.entry(key).or_default().push(record.clone());
    }
    cells
}

/// The best median rate of a system without pipelining, 0 if it was not measured.
pub fn best(records: &[Record], system: &str, workload: Workload) -> f64 {
    let cells = cells(records);
    let wanted = |key: &Key| {
        key.kind == "throughput"
            && key.system == system
            && key.workload == Some(workload)
            && key.pipeline == 1
    };
    let rates = cells.iter().filter(|(key, _)| wanted(key));
    rates.map(|(_, runs)| median(runs, |run| run.ops_per_second)).fold(0.0, f64::max)
}

/// Writes report.md and its plots into a directory.
pub fn write(records: &[Record], out: &Path) -> io::Result<()> {
    let cells = cells(records);
    let plots = plots::draw(&cells, out)?;
    fs::write(out.join("report.md"), tables::write(records, &cells, &plots))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: u32, system: &str, rate: f64) -> Record {
        Record {
            kind: "throughput".to_owned(),
            system: system.to_owned(),
            round,
            workload: Some(Workload::Write),
            connections: 64,
            pipeline: 1,
            ops_per_second: rate,
            p99_us: 1e6 / rate,
            ..Record::default()
        }
    }

    #[test]
    fn medians_are_of_one_cell() {
        let runs = [run(1, "etcd", 30.0), run(2, "etcd", 10.0), run(3, "etcd", 20.0)];
        let cells = cells(&[runs.to_vec(), vec![run(1, "redis", 99.0)]].concat());
        assert_eq!(cells.len(), 2);
        let of = |system| cells.iter().find(|(key, _)| key.system == system).unwrap().1;
        assert_eq!(median(of("etcd"), |run| run.ops_per_second), 20.0);
        assert_eq!(median(&runs[..2], |run| run.ops_per_second), 20.0);
        assert_eq!(median(&[], |run| run.ops_per_second), 0.0);
    }

    #[test]
    fn report_names_every_system_and_its_ratio() {
        let records = [
            run(1, "etcd", 2_000.0),
            run(1, "redis-aof-wait", 10_000.0),
            run(1, "ring-sync", 20_000.0),
        ];
        let text = tables::write(&records, &cells(&records), &[]);
        for part in ["| etcd | 2,000 |", "10.00", "2.00"] {
            assert!(text.contains(part), "no {part} in:\n{text}");
        }
    }
}
