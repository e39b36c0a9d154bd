//! The report's plots: SVG, so that they can be read in any browser and compared as text.

use super::{Cells, Key, median, tables::systems};
use crate::{meter::Record, plan::Workload};
use plotters::{coord::combinators::IntoLogRange, prelude::*};
use std::{io, path::Path};

const SIZE: (u32, u32) = (900, 480);
const FONT: (&str, i32) = ("sans-serif", 15);

/// A line: a name and its points.
type Line = (String, Vec<(f64, f64)>);

/// A plot of lines over logarithmic axes.
struct Plot {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    lines: Vec<Line>,
}

/// Draws what there are records for; the names of the files.
pub fn draw(cells: &Cells, out: &Path) -> io::Result<Vec<String>> {
    let rate: fn(&Record) -> f64 = |run| run.ops_per_second;
    let rates = |file, title, workload| Plot {
        file,
        title,
        x: "clients",
        y: "operations/s",
        lines: by_system(cells, workload, |key| key.connections as f64, rate),
    };
    let sweep = |file, title, x, kind, of: fn(&Key) -> f64| Plot {
        file,
        title,
        x,
        y: "operations/s",
        lines: by_workload(cells, kind, of, rate),
    };
    let plots = [
        rates("report-writes.svg", "Writes, no pipelining", Workload::Write),
        rates("report-reads.svg", "Reads, no pipelining", Workload::Read),
        Plot {
            file: "report-p99.svg",
            title: "Writes, no pipelining: p99",
            x: "clients",
            y: "ms",
            lines: by_system(
                cells,
                Workload::Write,
                |key| key.connections as f64,
                |run| run.p99_us / 1e3,
            ),
        },
        sweep("report-sizes.svg", "ring-sync by size of values", "bytes", "sizes", |key| {
            key.value_bytes as f64
        }),
        sweep("report-keys.svg", "ring-sync by number of keys", "keys", "keys", |key| {
            key.keys as f64
        }),
        sweep(
            "report-clients.svg",
            "ring-sync by number of clients",
            "clients",
            "clients",
            |key| key.connections as f64,
        ),
        Plot {
            file: "report-simulation.svg",
            title: "Messages for an operation, simulated",
            x: "nodes",
            y: "messages",
            lines: simulated(cells),
        },
    ];
    let mut files = Vec::new();
    for plot in plots {
        // One point makes no line.
        if plot.lines.iter().any(|(_, points)| points.len() > 1) {
            let path = out.join(plot.file);
            lines(&plot, &path).map_err(|error| io::Error::other(error.to_string()))?;
            files.push(plot.file.to_owned());
        }
    }
    Ok(files)
}

fn by_system(
    cells: &Cells,
    workload: Workload,
    x: impl Fn(&Key) -> f64,
    y: impl Fn(&Record) -> f64,
) -> Vec<Line> {
    let wanted =
        |key: &Key| key.kind == "throughput" && key.workload == Some(workload) && key.pipeline == 1;
    let line = |system: &str| {
        let mine = cells.iter().filter(|(key, _)| wanted(key) && key.system == system);
        (system.to_owned(), mine.map(|(key, runs)| (x(key), median(runs, &y))).collect())
    };
    systems(cells, wanted).into_iter().map(line).collect()
}

/// Messages of reads and of writes, by the number of nodes.
fn simulated(cells: &Cells) -> Vec<Line> {
    let mut lines = std::collections::BTreeMap::<String, Vec<(f64, f64)>>::new();
    for (key, runs) in cells.iter().filter(|(key, _)| key.kind == "simulation") {
        let name = key.name.clone().unwrap_or_default();
        if name.ends_with("write") || name.ends_with("read") {
            let line = lines.entry(format!("{}, {name}", key.system)).or_default();
            line.push((key.keys as f64, median(runs, |run| run.value)));
        }
    }
    lines.into_iter().collect()
}

fn by_workload(
    cells: &Cells,
    kind: &str,
    x: impl Fn(&Key) -> f64,
    y: impl Fn(&Record) -> f64,
) -> Vec<Line> {
    let line = |(name, workload): (&str, Workload)| {
        let wanted = |key: &Key| key.kind == kind && key.workload == Some(workload);
        let mine = cells.iter().filter(|(key, _)| wanted(key));
        let mut points: Vec<_> = mine.map(|(key, runs)| (x(key), median(runs, &y))).collect();
        points.sort_by(|one, two| one.0.total_cmp(&two.0));
        (name.to_owned(), points)
    };
    [("writes", Workload::Write), ("reads", Workload::Read)].into_iter().map(line).collect()
}

/// The range of one coordinate, a little wider than the points.
fn range(points: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (mut least, mut most) = (f64::MAX, f64::MIN_POSITIVE);
    for point in points.filter(|point| *point > 0.0) {
        least = least.min(point);
        most = most.max(point);
    }
    least.min(most) / 1.3..most * 1.3
}

fn lines(plot: &Plot, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || plot.lines.iter().flat_map(|(_, points)| points);
    let (x, y) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)));
    let mut chart = ChartBuilder::on(&root)
        .caption(plot.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(80)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    let number = |value: &f64| match *value {
        small if small < 10.0 => format!("{small}"),
        large => super::tables::thousands(large),
    };
    chart
        .configure_mesh()
        .x_desc(plot.x)
        .y_desc(plot.y)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .label_style(FONT)
        .light_line_style(WHITE)
        .draw()?;
    for (at, (name, points)) in plot.lines.iter().enumerate() {
        let style = Palette99::pick(at).stroke_width(2);
        let line = LineSeries::new(points.iter().copied(), style).point_size(3);
        chart.draw_series(line)?.label(name).legend(move |(x, y)| {
            PathElement::new([(x, y), (x + 20, y)], Palette99::pick(at).stroke_width(2))
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK)
        .label_font(FONT)
        .draw()?;
    root.present()?;
    Ok(())
}
