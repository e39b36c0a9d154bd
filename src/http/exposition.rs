//! The text that Prometheus reads, format 0.0.4: families of samples, each with its help and type.
//!
//! Own, because the format is a page and what a library adds are counters of its own: ours are counted
//! by the actors ([`simpledynamo_actors::metrics`]) and shown by `/status`, the page and `top` as well.
//!
//! Caveat: label values come from fixed lists and numbers; they are escaped all the same.

use simpledynamo_actors::metrics::Reading;
use std::fmt::{Display, Write};

/// What the numbers of a histogram are, and so how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Microseconds, shown as seconds.
    Seconds,
    /// A plain number.
    Count,
}

impl Unit {
    /// The powers of two that bound the buckets shown: 64 µs to 4 s, 1 to 2,047.
    fn bounds(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Unit::Seconds => 6..=22,
            Unit::Count => 1..=11,
        }
    }

    fn shown(self, number: u64) -> f64 {
        match self {
            Unit::Seconds => number as f64 / 1e6,
            Unit::Count => number as f64,
        }
    }

    /// The largest number of a bucket that ends below `limit`. Times are cut to whole microseconds, so
    /// what is below 64 may be anything up to 64.
    fn bound(self, limit: u64) -> f64 {
        match self {
            Unit::Seconds => self.shown(limit),
            Unit::Count => self.shown(limit - 1),
        }
    }
}

/// One label and its value.
pub(super) type Label<'a> = (&'static str, &'a dyn Display);

/// The text as far as it goes.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, count: u64) {
        self.counters(name, help).sample(&[], count);
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help).sample(&[], value);
    }

    /// A family of counters; the name ends in `_total`.
    pub(super) fn counters<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "counter", help)
    }

    /// A family of gauges.
    pub(super) fn gauges<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "gauge", help)
    }

    /// A family of histograms.
    pub(super) fn histograms<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "histogram", help)
    }

    fn family<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Family<'a> {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// The samples of one name.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Family<'_> {
    /// One sample.
    pub(super) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, value);
    }

    /// One histogram: how many numbers are at most each bound, how many there are, and their sum.
    pub(super) fn histogram(&mut self, labels: &[Label<'_>], unit: Unit, reading: &Reading) {
        let count = reading.count();
        for power in unit.bounds() {
            let limit = 1 << power;
            self.bucket(labels, &unit.bound(limit), reading.below(limit));
        }
        self.bucket(labels, &"+Inf", count);
        self.line("_sum", labels, unit.shown(reading.sum));
        self.line("_count", labels, count);
    }

    fn bucket(&mut self, labels: &[Label<'_>], bound: &dyn Display, count: u64) {
        let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
        self.line("_bucket", &labels, count);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (label, of)) in labels.iter().enumerate() {
            let of = of.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{of}\"", if at == 0 { '{' } else { ',' });
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_actors::metrics::Histogram;

    #[test]
    fn it_is_the_text_that_prometheus_reads() {
        let mut out = Exposition::default();
        out.counter("a_total", "How many.", 7);
        let mut family = out.gauges("b", "Labels are escaped.");
        family.sample(&[("x", &"quote \" slash \\ line \n"), ("y", &1)], 0.5);
        assert_eq!(
            out.finish(),
            "# HELP a_total How many.\n# TYPE a_total counter\na_total 7\n\
             # HELP b Labels are escaped.\n# TYPE b gauge\n\
             b{x=\"quote \\\" slash \\\\ line \\n\",y=\"1\"} 0.5\n"
        );
    }

    #[test]
    fn buckets_of_a_histogram_are_cumulative() {
        let histogram = Histogram::default();
        [0, 7, 8, 2_047, 2_048].iter().for_each(|number| histogram.record(*number));
        let mut out = Exposition::default();
        let labels: &[Label<'_>] = &[("of", &"x")];
        out.histograms("h", "Sizes.").histogram(labels, Unit::Count, &histogram.read());
        let text = out.finish();
        for line in [
            "h_bucket{of=\"x\",le=\"7\"} 2",
            "h_bucket{of=\"x\",le=\"15\"} 3",
            "h_bucket{of=\"x\",le=\"2047\"} 4",
            "h_bucket{of=\"x\",le=\"+Inf\"} 5",
            "h_sum{of=\"x\"} 4110",
            "h_count{of=\"x\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let mut out = Exposition::default();
        out.histograms("t_seconds", "Times.").histogram(&[], Unit::Seconds, &histogram.read());
        assert!(out.finish().contains("t_seconds_bucket{le=\"0.000064\"} 3\n"));
    }
}
