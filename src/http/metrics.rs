//! `/metrics`: what a node counts, as Prometheus reads it.
//!
//! Every name begins with `dynamo_`, has its unit at its end and is in the table of
//! `docs/operations.md`; tests compare both, and the dashboard and the alerts with them.
//!
//! Caveat: histograms of commands that nobody has used yet are left out, their counters are not.

use super::exposition::{Exposition, Unit};
use simpledynamo_actors::{
    bridge::FAMILIES,
    flow::Counts,
    messages::{Phase, Standing, Status, Table, Traffic},
    metrics::{Metrics, OUTCOMES},
};

/// What is shown.
pub(super) struct Figures<'a> {
    pub(super) status: &'a Status,
    pub(super) table: &'a Table,
    pub(super) traffic: &'a Traffic,
    pub(super) metrics: &'a Metrics,
    pub(super) flow: Counts,
    /// Unix seconds.
    pub(super) started: u64,
    /// Bytes.
    pub(super) resident: u64,
    /// Open event streams of the page.
    pub(super) streams: usize,
}

/// The whole text.
pub(super) fn render(figures: &Figures<'_>) -> String {
    let mut out = Exposition::default();
    node(&mut out, figures);
    requests(&mut out, figures);
    clients(&mut out, figures);
    store(&mut out, figures);
    peers(&mut out, figures);
    bridge(&mut out, figures);
    flow(&mut out, figures);
    out.finish()
}

fn node(out: &mut Exposition, figures: &Figures<'_>) {
    let Figures { status, table, started, resident, streams, .. } = figures;
    let version = env!("CARGO_PKG_VERSION");
    out.gauges("dynamo_info", "Always 1; says which node this is, and its version.").sample(
        &[("node", &table.me), ("version", &version), ("incarnation", &status.incarnation)],
        1,
    );
    out.gauge("dynamo_start_time_seconds", "When the process began to serve, Unix time.", started);
    let mut phases =
        out.gauges("dynamo_phase", "1 for the phase the node is in, 0 for the others.");
    for phase in [Phase::Starting, Phase::Learning, Phase::Serving] {
        let name = super::page::phase(phase);
        phases.sample(&[("phase", &name)], u8::from(phase == status.phase));
    }
    let help = "1 while all that the node had missed has been copied.";
    out.gauge("dynamo_level", help, u8::from(status.level));
    out.gauge("dynamo_memory_resident_bytes", "Memory the process holds.", resident);
    out.gauge("dynamo_http_streams", "Event streams open, one for each page that looks.", streams);
}

fn requests(out: &mut Exposition, figures: &Figures<'_>) {
    let Figures { status, metrics, .. } = figures;
    let help = "Operations on one key that ended, by command and outcome; MGET of ten keys is ten.";
    let mut requests = out.counters("dynamo_requests_total", help);
    for (command, counts) in metrics.requests() {
        for (outcome, count) in OUTCOMES.into_iter().zip(counts) {
            requests.sample(&[("command", &command), ("outcome", &outcome)], count);
        }
    }
    let help = "From the operation's arrival at this node to its end.";
    let mut latency = out.histograms("dynamo_request_duration_seconds", help);
    for (command, reading) in metrics.latencies().filter(|(_, reading)| reading.count() > 0) {
        latency.histogram(&[("command", &command)], Unit::Seconds, &reading);
    }
    out.gauge("dynamo_requests_in_flight", "Operations under way here.", status.in_flight);
    let help = "Operations that were tried at a further coordinator.";
    out.counter("dynamo_retries_total", help, status.retries);
    let help = "Operations for which one more node was asked before the time-out.";
    out.counter("dynamo_hedges_total", help, status.hedges);
    out.gauge("dynamo_coordinators", "Keys this node coordinates just now.", status.coordinators);
    let help = "Rounds this node began: read, by a router or a coordinator, fast (one round trip), prepare (a \
                ballot first), write_back (a state written again).";
    let mut rounds = out.counters("dynamo_rounds_total", help);
    for (kind, count) in metrics.rounds() {
        rounds.sample(&[("kind", &kind)], count);
    }
}

fn clients(out: &mut Exposition, figures: &Figures<'_>) {
    let metrics = figures.metrics;
    let (opened, closed) = (metrics.clients_opened.get(), metrics.clients_closed.get());
    let now = opened.saturating_sub(closed);
    out.gauge("dynamo_client_connections", "Clients connected.", now);
    out.counter("dynamo_client_connections_total", "Clients let in.", opened);
    let help = "Clients turned away because too many were there.";
    out.counter("dynamo_client_rejections_total", help, metrics.clients_turned_away.get());
    let help = "Commands that clients sent, those without a key and wrong ones included.";
    out.counter("dynamo_client_commands_total", help, metrics.client_commands.get());
    let help = "Bytes that clients sent.";
    out.counter("dynamo_client_received_bytes_total", help, metrics.client_bytes_in.get());
    let help = "Bytes that clients were sent.";
    out.counter("dynamo_client_sent_bytes_total", help, metrics.client_bytes_out.get());
}

fn store(out: &mut Exposition, figures: &Figures<'_>) {
    let Figures { status, traffic, metrics, .. } = figures;
    out.gauge("dynamo_keys", "Live keys stored here.", status.live);
    out.gauge("dynamo_rows", "Rows stored here, marks of deletions included.", status.rows);
    let help = "Bytes of the disk that the store takes; looked at once a second, after a commit.";
    out.gauge("dynamo_store_disk_bytes", help, traffic.disk_bytes);
    let help = "Operations that wait for the writer.";
    out.gauge("dynamo_writer_queue_operations", help, traffic.queued);
    let help = "Bytes of the operations that wait for the writer.";
    out.gauge("dynamo_writer_queue_bytes", help, traffic.queued_bytes);
    let commits = metrics.commit_operations.read();
    out.histograms("dynamo_commit_operations", "Operations in one durable commit.").histogram(
        &[],
        Unit::Count,
        &commits,
    );
    let syncs = metrics.commit_time.read();
    out.histograms("dynamo_commit_duration_seconds", "Time of one commit, its sync included.")
        .histogram(&[], Unit::Seconds, &syncs);
    let help = "Records copied from other replicas.";
    out.counter("dynamo_catchup_copied_records_total", help, status.copied);
    let help = "Keys written anew because their replicas disagreed.";
    out.counter("dynamo_catchup_repairs_total", help, metrics.repairs.get());
    let help = "Comparisons with the other replicas begun.";
    out.counter("dynamo_catchup_passes_total", help, metrics.passes.get());
}

fn peers(out: &mut Exposition, figures: &Figures<'_>) {
    let Figures { table, traffic, metrics, .. } = figures;
    let help = "Times a node became suspected.";
    out.counter("dynamo_suspicions_total", help, metrics.suspicions.get());
    let mut suspected =
        out.gauges("dynamo_peer_suspected", "1 while this node believes it silent.");
    for node in table.nodes.iter().filter(|node| node.standing != Standing::Me) {
        suspected.sample(&[("peer", &node.id)], u8::from(node.standing == Standing::Suspected));
    }
    let mut connected = out.gauges("dynamo_peer_connected", "1 while there is a connection to it.");
    for link in &traffic.links {
        connected.sample(&[("peer", &link.peer)], u8::from(link.connected));
    }
    let mut waiting = out.gauges("dynamo_peer_queue_bytes", "Bytes that wait for it.");
    for link in &traffic.links {
        waiting.sample(&[("peer", &link.peer)], link.waiting);
    }
    let help = "Messages sent to it, by their part in the protocol.";
    let mut sent = out.counters("dynamo_peer_messages_total", help);
    for link in &traffic.links {
        for (family, count) in FAMILIES.into_iter().zip(link.sent) {
            sent.sample(&[("peer", &link.peer), ("family", &family)], count);
        }
    }
}

fn bridge(out: &mut Exposition, figures: &Figures<'_>) {
    let counters = &figures.traffic.counters;
    out.counter("dynamo_bridge_sent_frames_total", "Frames to peers.", counters.frames_out);
    out.counter("dynamo_bridge_sent_bytes_total", "Bytes to peers.", counters.bytes_out);
    let help = "Writes to peers' sockets.";
    out.counter("dynamo_bridge_writes_total", help, counters.writes);
    out.counter("dynamo_bridge_received_frames_total", "Frames of peers.", counters.frames_in);
    out.counter("dynamo_bridge_received_bytes_total", "Bytes of peers.", counters.bytes_in);
    let help = "Frames that went to a peer together.";
    out.histograms("dynamo_bridge_batch_frames", help).histogram(
        &[],
        Unit::Count,
        &figures.traffic.frames_per_write,
    );
    let help = "Messages to peers that did not leave: too much waited, no connection, too large, or \
                the connection ended while they were written.";
    let mut dropped = out.counters("dynamo_bridge_dropped_messages_total", help);
    for (reason, count) in [
        ("full", counters.dropped_full),
        ("unconnected", counters.dropped_unconnected),
        ("large", counters.dropped_large),
        ("lost", counters.lost),
    ] {
        dropped.sample(&[("reason", &reason)], count);
    }
    let mut events = out.counters("dynamo_bridge_connections_total", "What became of connections.");
    for (event, count) in [
        ("made", counters.connects),
        ("ended", counters.disconnects),
        ("failed", counters.dial_failures),
        ("accepted", counters.accepts),
        ("superseded", counters.superseded),
        ("refused", counters.refused),
        ("stranger", counters.strangers),
        ("crowded_out", counters.crowded_out),
        ("damaged", counters.damaged),
    ] {
        events.sample(&[("event", &event)], count);
    }
    let help = "Frames skipped because this version does not know them.";
    out.counter("dynamo_bridge_unknown_frames_total", help, counters.unknown_tags);
}

fn flow(out: &mut Exposition, figures: &Figures<'_>) {
    let counts = figures.flow;
    let help = "Flow records taken down in memory.";
    out.counter("dynamo_flow_records_total", help, counts.recorded);
    let help = "Flow records handed to their file.";
    out.counter("dynamo_flow_written_records_total", help, counts.written);
    let help = "Flow records lost because their writer was too slow or the disk refused.";
    out.counter("dynamo_flow_dropped_records_total", help, counts.dropped);
    let help = "Slow, failed and retried requests, by whether their records were written.";
    let mut kept = out.counters("dynamo_flow_kept_requests_total", help);
    kept.sample(&[("written", &"yes")], counts.kept);
    kept.sample(&[("written", &"no")], counts.spared);
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_actors::{bridge::LinkFigures, messages::Member, metrics::CommandKind};
    use simpledynamo_protocol::{
        command::{Command, Reply},
        ring::NodeId,
        routing::Verdict,
    };
    use std::{collections::BTreeMap, fs, path::Path, time::Duration};

    /// The text of a node with a peer and a request, so that every family has samples.
    fn text() -> String {
        let metrics = Metrics::default();
        let get = CommandKind::from(&Command::Get);
        metrics.ended(get, &Verdict::Reply(Reply::Nil), Duration::from_micros(300));
        let peer = NodeId(7);
        let member = Member {
            id: peer,
            peer: ([127, 0, 0, 1], 1).into(),
            position: String::new(),
            share: 0.5,
            standing: Standing::Suspected,
        };
        let link = LinkFigures { peer, connected: true, waiting: 5, sent: [1; FAMILIES.len()] };
        render(&Figures {
            status: &Status::default(),
            table: &Table { me: NodeId(5), nodes: vec![member] },
            traffic: &Traffic { links: vec![link], ..Traffic::default() },
            metrics: &metrics,
            flow: Counts::default(),
            started: 1,
            resident: 2,
            streams: 3,
        })
    }

    /// Every name with its type.
    fn exported() -> BTreeMap<String, String> {
        let text = text();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let pairs = types.filter_map(|line| line.split_once(' '));
        let pairs = pairs.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        let exported: BTreeMap<_, _> = pairs.collect();
        let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(exported.len(), families, "a name comes once");
        exported
    }

    fn document(name: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
    }

    /// The metrics that an expression names.
    fn named(expression: &str) -> Vec<&str> {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("dynamo_")).collect()
    }

    fn check(expression: &str, exported: &BTreeMap<String, String>) {
        for name in named(expression) {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| {
                let family = name.strip_suffix(suffix).and_then(|name| exported.get(name));
                family.is_some_and(|kind| kind == "histogram")
            });
            let plain = exported.get(name).is_some_and(|kind| kind != "histogram");
            assert!(plain || of_histogram, "{name} in `{expression}` is exported by no node");
        }
    }

    #[test]
    fn names_and_samples_are_as_prometheus_wants_them() {
        let (text, exported) = (text(), exported());
        for (name, kind) in &exported {
            assert!(name.starts_with("dynamo_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
            let sample = |line: &&str| line.starts_with(name.as_str());
            assert!(text.lines().any(|line| sample(&line)), "{name} has no sample");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            check(line.split(['{', ' ']).next().unwrap(), &exported);
        }
        let bucket = "dynamo_request_duration_seconds_bucket{command=\"get\",le=\"0.000512\"} 1\n";
        assert!(text.contains(bucket), "{text}");
        assert!(text.contains("dynamo_peer_suspected{peer=\"7\"} 1\n"));
    }

    #[test]
    fn the_documentation_has_every_metric_with_its_type() {
        let text = document("operations.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `dynamo_"));
        let rows = rows.filter_map(|row| row.split_once("` | "));
        let told: BTreeMap<_, _> = rows
            .map(|(name, rest)| {
                let name = name.split('{').next().unwrap_or_default();
                (format!("dynamo_{name}"), rest.split(' ').next().unwrap_or_default().to_owned())
            })
            .collect();
        assert_eq!(told, exported());
    }

    #[test]
    fn the_dashboard_shows_what_is_exported() {
        let dashboard: serde_json::Value =
            serde_json::from_str(&document("operations/grafana.json")).unwrap();
        let exported = exported();
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.len() > 10);
        for panel in panels {
            assert!(!panel["title"].as_str().unwrap().is_empty());
            for target in panel["targets"].as_array().unwrap() {
                let expression = target["expr"].as_str().unwrap();
                assert!(!named(expression).is_empty(), "{expression}");
                check(expression, &exported);
            }
        }
    }

    #[test]
    fn the_alerts_watch_what_is_exported() {
        let rules: serde_json::Value =
            serde_norway::from_str(&document("operations/alerts.yml")).unwrap();
        let exported = exported();
        let rules = rules["groups"][0]["rules"].as_array().unwrap().clone();
        assert!(rules.len() > 5);
        for rule in rules {
            for field in ["alert", "expr", "for"] {
                assert!(rule[field].is_string(), "{field} of {rule}");
            }
            assert!(rule["annotations"]["summary"].is_string(), "{rule}");
            assert!(rule["labels"]["severity"].is_string(), "{rule}");
            let expression = rule["expr"].as_str().unwrap();
            assert!(expression.contains("up{") || !named(expression).is_empty(), "{expression}");
            check(expression, &exported);
        }
    }
}
