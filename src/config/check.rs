//! From what was typed to what cannot be wrong: one function a subject, one sentence a rule.

use super::{
    Cluster, Environment, Hidden, Node, Replication,
    error::Finding,
    file::{ClusterFile, LimitsFile, LoggingFile, NodeFile, Typed},
    units::{Size, Time, size, time},
};
use log::LevelFilter;
use simpledynamo_actors::{
    settings::{Durability, Flow, FlowMode, Limits},
    storage::KEY_BYTES_MAX,
};
use simpledynamo_protocol::{recent::RESULTS_BYTES_MAX, ring::NodeId};
use std::{
    net::{IpAddr, SocketAddr},
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};
use toml::Spanned;

/// `request_timeout`, `hedge_after` and `deadline`: below, clocks are too coarse; above, nobody waits.
const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// A tombstone must outlast every request that may still be under way: so many deadlines …
const GRACE_DEADLINES: u32 = 10;
/// … and this, for clocks that differ.
const GRACE_SKEW: Duration = Duration::from_secs(60);
/// Largest `value_bytes`: what Redis takes.
const VALUE_BYTES_MAX: usize = 512 << 20;
/// Largest `frame_bytes`; also keeps every sum below from overflowing.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// What a record may need in a frame beside its key, its value and its results.
const RECORD_OVERHEAD: usize = 64 * 1024;
/// `flow_memory`: below, no request would be whole in it; above, http could not read it in time.
const FLOW_MEMORY: (usize, usize) = (64 << 10, 1 << 30);
/// `flow_files`: below, they would change all the time.
const FLOW_FILES: (usize, usize) = (1 << 20, 1 << 40);
/// Characters of `secret` and `password`: both are hashed or compared on every connection.
const SECRET_CHARS_MAX: usize = 1024;

type Checked<T> = Result<T, Finding>;

/// The place of a value; none where it was left out.
fn place<T>(typed: &Typed<T>) -> Option<Range<usize>> {
    typed.as_ref().map(Spanned::span)
}

/// The value, or the default.
fn or<T: Clone>(typed: &Typed<T>, default: T) -> T {
    typed.as_ref().map_or(default, |typed| typed.get_ref().clone())
}

fn fail<T>(span: Option<Range<usize>>, what: impl Into<String>) -> Checked<T> {
    Err(Finding { span, what: what.into() })
}

/// What the parser found, with a mend.
pub(super) fn syntax(error: &toml::de::Error) -> Finding {
    let message = error.message().trim_end().replace('\n', ", ");
    let mend = match message.as_str() {
        text if text.contains(": write ") => "",
        text if text.starts_with("unknown field") => ": correct its spelling or remove it",
        text if text.starts_with("duplicate key") => ": keep one of the two",
        _ => ": see the comments of the shipped cluster.toml for how it is written",
    };
    Finding { span: error.span(), what: format!("{message}{mend}") }
}

/// More than any machine needs; each costs a thread and its stack.
const WORKERS_MAX: usize = 64;

/// Every rule.
pub(super) fn cluster(
    file: &Path,
    typed: ClusterFile,
    environment: &Environment,
) -> Checked<Cluster> {
    let replication = replication(&typed.replication)?;
    let nodes = nodes(&typed.node)?;
    let (replicas, read_quorum, write_quorum) = quorums(&typed, nodes.len())?;
    chain_of(replication, replicas, &typed)?;
    let times = times(&typed)?;
    let secret = hidden(environment.secret.as_ref(), "DYNAMO_SECRET", &typed.secret, "secret")?;
    let password =
        hidden(environment.password.as_ref(), "DYNAMO_PASSWORD", &typed.password, "password")?;
    if secret.is_none() || password.is_none() {
        closed(&typed.node, &nodes, secret.is_none(), password.is_none())?;
    }
    Ok(Cluster {
        file: file.to_owned(),
        nodes,
        replication,
        replicas,
        read_quorum,
        write_quorum,
        request_timeout: times.request,
        hedge_after: times.hedge,
        deadline: times.deadline,
        tombstone_grace: times.grace,
        durability: durability(&typed.durability)?,
        workers: workers(&typed.workers)?,
        limits: limits(&typed.limits)?,
        level: level(&typed.logging.level)?,
        flow: flow(&typed.logging)?,
        secret,
        password,
    })
}

fn replication(typed: &Typed<String>) -> Checked<Replication> {
    match or(typed, "quorum".to_owned()).as_str() {
        "quorum" => Ok(Replication::Quorum),
        "chain" => Ok(Replication::Chain),
        other => fail(
            place(typed),
            format!("replication \"{other}\" is unknown: write \"quorum\" or \"chain\""),
        ),
    }
}

/// A tail asks one other node whether its epoch stands: with itself, a majority of three.
fn chain_of(replication: Replication, replicas: u32, typed: &ClusterFile) -> Checked<()> {
    if replication == Replication::Quorum || replicas <= 3 {
        return Ok(());
    }
    let what = format!("a chain of {replicas} is not possible: write replicas = 3");
    fail(place(&typed.replicas), what)
}

fn durability(typed: &Typed<String>) -> Checked<Durability> {
    match or(typed, "sync".to_owned()).as_str() {
        "sync" => Ok(Durability::Sync),
        "os" => Ok(Durability::Os),
        other => fail(
            place(typed),
            format!("durability \"{other}\" is unknown: write \"sync\" or \"os\""),
        ),
    }
}

fn workers(typed: &Typed<u32>) -> Checked<usize> {
    match usize::try_from(or(typed, 0)) {
        Ok(workers) if workers <= WORKERS_MAX => Ok(workers),
        _ => fail(
            place(typed),
            format!(
                "workers is a number of threads, at most {WORKERS_MAX}: write no more than the \
                 machine has processors, or 0 for none"
            ),
        ),
    }
}

fn level(typed: &Typed<String>) -> Checked<LevelFilter> {
    let name = or(typed, "info".to_owned());
    let known = name.parse().ok().filter(|_| name.chars().all(|c| c.is_ascii_lowercase()));
    let Some(level) = known else {
        let names = "\"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
        return fail(place(typed), format!("level \"{name}\" is unknown: write {names}"));
    };
    Ok(level)
}

/// Flow records: which, and how much of them.
fn flow(typed: &LoggingFile) -> Checked<Flow> {
    let d = Flow::default();
    let mode = match or(&typed.flow, "sampled".to_owned()).as_str() {
        "off" => FlowMode::Off,
        "sampled" => FlowMode::Sampled,
        "all" => FlowMode::All,
        other => {
            let what =
                format!("flow \"{other}\" is unknown: write \"off\", \"sampled\" or \"all\"");
            return fail(place(&typed.flow), what);
        }
    };
    let (least, most) = FLOW_MEMORY;
    let memory = bytes(&typed.flow_memory, "flow_memory", d.memory_bytes, least, most)?;
    let (least, most) = FLOW_FILES;
    let default = usize::try_from(d.file_bytes).unwrap_or(most);
    let files = bytes(&typed.flow_files, "flow_files", default, least, most)?;
    Ok(Flow {
        mode,
        slow: or(&typed.flow_slow, Time(d.slow)).0,
        one_in: typed.flow_one_in.as_ref().map_or(d.one_in, |typed| (*typed.get_ref()).into()),
        memory_bytes: memory,
        file_bytes: files as u64,
    })
}

/// The secret or the password: the environment's, or else the file's.
fn hidden(
    set: Option<&Hidden>,
    variable: &str,
    typed: &Typed<String>,
    name: &str,
) -> Checked<Option<Hidden>> {
    let (text, span, name) = match (set, typed) {
        (Some(set), _) => (&set.0, None, format!("{variable} in the environment")),
        (None, Some(typed)) => (typed.get_ref(), Some(typed.span()), name.to_owned()),
        (None, None) => return Ok(None),
    };
    if text.is_empty() {
        return fail(span, format!("{name} is empty: write a long random text or remove it"));
    }
    if text.chars().count() > SECRET_CHARS_MAX {
        let most = SECRET_CHARS_MAX;
        return fail(span, format!("{name} is longer than {most} characters: shorten it"));
    }
    if text.chars().any(char::is_control) {
        return fail(span, format!("{name} has control characters: use printable ones only"));
    }
    Ok(Some(Hidden(text.clone())))
}

fn quorums(typed: &ClusterFile, nodes: usize) -> Checked<(u32, u32, u32)> {
    let replicas = or(&typed.replicas, 3);
    if !matches!(replicas, 1 | 3 | 5) {
        let what = format!("replicas = {replicas} is not possible: write 1, 3 or 5");
        return fail(place(&typed.replicas), what);
    }
    if usize::try_from(replicas).unwrap_or(usize::MAX) > nodes {
        let what = format!(
            "{replicas} replicas need at least as many nodes, and the file has {nodes}: add \
             [[node]] tables or lower replicas"
        );
        return fail(place(&typed.replicas), what);
    }
    let majority = replicas / 2 + 1;
    let check = |quorum: &Typed<u32>, name| {
        let chosen = or(quorum, majority);
        if (majority..=replicas).contains(&chosen) {
            return Ok(chosen);
        }
        let what = format!(
            "{name} = {chosen} does not work with {replicas} replicas, because any two quorums \
             must have a node in common (read_quorum + write_quorum > replicas, write_quorum * 2 \
             > replicas, read_quorum * 2 > replicas): write {majority} to {replicas}"
        );
        fail(place(quorum).or(place(&typed.replicas)), what)
    };
    let read = check(&typed.read_quorum, "read_quorum")?;
    let write = check(&typed.write_quorum, "write_quorum")?;
    Ok((replicas, read, write))
}

struct Times {
    request: Duration,
    hedge: Duration,
    deadline: Duration,
    grace: Duration,
}

fn times(typed: &ClusterFile) -> Checked<Times> {
    let patience = |value: &Typed<Time>, name, default| {
        let chosen = or(value, Time(default)).0;
        if PATIENCE.contains(&chosen) {
            return Ok(chosen);
        }
        let (low, high) = (time(*PATIENCE.start()), time(*PATIENCE.end()));
        let what = format!("{name} = \"{}\" is out of range: write {low} to {high}", time(chosen));
        fail(place(value), what)
    };
    let request = patience(&typed.request_timeout, "request_timeout", Duration::from_millis(100))?;
    let hedge = patience(&typed.hedge_after, "hedge_after", Duration::from_millis(10))?;
    let deadline = patience(&typed.deadline, "deadline", Duration::from_secs(2))?;
    if request >= deadline {
        let what = format!(
            "request_timeout = \"{}\" leaves no time for another attempt within deadline = \
             \"{}\": make it less than the deadline",
            time(request),
            time(deadline)
        );
        return fail(place(&typed.request_timeout).or(place(&typed.deadline)), what);
    }
    let grace = or(&typed.tombstone_grace, Time(Duration::from_secs(3600))).0;
    let least = deadline * GRACE_DEADLINES + GRACE_SKEW;
    if grace < least {
        let what = format!(
            "tombstone_grace = \"{}\" could forget a deletion while an older request is still \
             under way: write at least \"{}\" (ten deadlines and a minute)",
            time(grace),
            time(least)
        );
        return fail(place(&typed.tombstone_grace), what);
    }
    Ok(Times { request, hedge, deadline, grace })
}

/// A size within bounds.
fn bytes(
    typed: &Typed<Size>,
    name: &str,
    default: usize,
    least: usize,
    most: usize,
) -> Checked<usize> {
    let chosen = or(typed, Size(default)).0;
    if (least..=most).contains(&chosen) {
        return Ok(chosen);
    }
    let (low, high, chosen) = (size(least), size(most), size(chosen));
    let what = format!("{name} = \"{chosen}\" is out of range: write \"{low}\" to \"{high}\"");
    fail(place(typed), what)
}

/// A count of at least one.
fn count(typed: &Typed<u32>, name: &str, default: usize) -> Checked<usize> {
    let chosen = typed.as_ref().map_or(Ok(default), |typed| usize::try_from(*typed.get_ref()));
    match chosen {
        Ok(count @ 1..) => Ok(count),
        _ => fail(place(typed), format!("{name} must be at least 1: without any, nothing works")),
    }
}

fn limits(typed: &LimitsFile) -> Checked<Limits> {
    let d = Limits::default();
    let value = bytes(&typed.value_bytes, "value_bytes", d.value_bytes, 1, VALUE_BYTES_MAX)?;
    let key = bytes(&typed.key_bytes, "key_bytes", d.key_bytes, 1, KEY_BYTES_MAX)?;
    let frame = bytes(&typed.frame_bytes, "frame_bytes", d.frame_bytes, 1, FRAME_BYTES_MAX)?;
    let least = value + key + RESULTS_BYTES_MAX + RECORD_OVERHEAD;
    if frame < least {
        let what = format!(
            "frame_bytes = \"{}\" cannot carry a record with the largest value and key: write at \
             least \"{}\" (value_bytes + key_bytes + {} of results + {} for the rest), or lower \
             value_bytes",
            size(frame),
            size(least),
            size(RESULTS_BYTES_MAX),
            size(RECORD_OVERHEAD)
        );
        return fail(place(&typed.frame_bytes).or(place(&typed.value_bytes)), what);
    }
    let peer = or(&typed.peer_bytes, Size(d.peer_bytes)).0;
    if peer < 2 * frame {
        let what = format!(
            "peer_bytes = \"{}\" must hold two frames: write at least \"{}\"",
            size(peer),
            size(2 * frame)
        );
        return fail(place(&typed.peer_bytes).or(place(&typed.frame_bytes)), what);
    }
    let output = or(&typed.client_output_bytes, Size(d.client_output_bytes)).0;
    if output < 2 * value {
        let what = format!(
            "client_output_bytes = \"{}\" must hold two of the largest values: write at least \
             \"{}\"",
            size(output),
            size(2 * value)
        );
        return fail(place(&typed.client_output_bytes).or(place(&typed.value_bytes)), what);
    }
    Ok(Limits {
        value_bytes: value,
        key_bytes: key,
        frame_bytes: frame,
        peer_bytes: peer,
        requests: count(&typed.requests, "requests", d.requests)?,
        clients: count(&typed.clients, "clients", d.clients)?,
        client_output_bytes: output,
        cache_bytes: or(&typed.cache_bytes, Size(d.cache_bytes)).0,
        coordinators: count(&typed.coordinators, "coordinators", d.coordinators)?,
    })
}

fn nodes(typed: &[Spanned<NodeFile>]) -> Checked<Vec<Node>> {
    if typed.is_empty() {
        let what = "there is no [[node]] table: add one for each node, with id, client, peer and \
                    http";
        return fail(None, what);
    }
    let mut nodes: Vec<Node> = Vec::new();
    for table in typed {
        let node = node(table)?;
        if nodes.iter().any(|other| other.id == node.id) {
            let what = format!("node {} is there twice: give one of the two another id", node.id);
            return fail(place(&table.get_ref().id), what);
        }
        for (purpose, address, typed) in addresses(table.get_ref(), &node) {
            if let Some(other) = nodes.iter().find_map(|other| clash(other, address)) {
                let what = format!(
                    "{address} is already the {other}: give the {purpose} address of node {} \
                     another port",
                    node.id
                );
                return fail(place(typed), what);
            }
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// A node's addresses with their purpose and place.
fn addresses<'a>(
    typed: &'a NodeFile,
    node: &Node,
) -> [(&'static str, SocketAddr, &'a Typed<String>); 3] {
    [
        ("client", node.client, &typed.client),
        ("peer", node.peer, &typed.peer),
        ("http", node.http, &typed.http),
    ]
}

/// Whose `address` is, if it is one of this node's.
fn clash(node: &Node, address: SocketAddr) -> Option<String> {
    let all = [("client", node.client), ("peer", node.peer), ("http", node.http)];
    let (purpose, _) = all.into_iter().find(|(_, own)| *own == address)?;
    Some(format!("{purpose} address of node {}", node.id))
}

fn node(table: &Spanned<NodeFile>) -> Checked<Node> {
    let typed = table.get_ref();
    let Some(typed_id) = &typed.id else {
        return fail(Some(table.span()), "this node has no id: add a line such as id = 5554");
    };
    let id = u32::try_from(*typed_id.get_ref()).ok().filter(|id| (1..u32::MAX).contains(id));
    let Some(id) = id else {
        let what = format!(
            "id = {} is out of range: write a whole number from 1 to {}",
            typed_id.get_ref(),
            u32::MAX - 1
        );
        return fail(Some(typed_id.span()), what);
    };
    let read = |value, purpose, port| address(value, purpose, port, id, table);
    let node = Node {
        id: NodeId(id),
        client: read(&typed.client, "client", 11108)?,
        peer: read(&typed.peer, "peer", 12108)?,
        http: read(&typed.http, "http", 13108)?,
    };
    // Within a node the unspecified address takes the port of all others, too.
    let [client, peer, http] = addresses(typed, &node);
    for (one, other) in [(client, peer), (client, http), (peer, http)] {
        let all = one.1.ip().is_unspecified() || other.1.ip().is_unspecified();
        if one.1.port() == other.1.port() && (all || one.1.ip() == other.1.ip()) {
            let what = format!(
                "node {id} has port {} for both {} and {}: give one of them another port",
                one.1.port(),
                one.0,
                other.0
            );
            return fail(place(other.2), what);
        }
    }
    Ok(node)
}

fn address(
    typed: &Typed<String>,
    purpose: &str,
    port: u16,
    id: u32,
    table: &Spanned<NodeFile>,
) -> Checked<SocketAddr> {
    let Some(value) = typed else {
        let what = format!(
            "node {id} has no {purpose} address: add a line such as {purpose} = \
             \"127.0.0.1:{port}\""
        );
        return fail(Some(table.span()), what);
    };
    let text = value.get_ref();
    let Ok(address) = text.parse::<SocketAddr>() else {
        let what = format!(
            "\"{text}\" is not an address: write IP:port, such as \"127.0.0.1:{port}\" or \
             \"[::1]:{port}\" (names are not looked up)"
        );
        return fail(Some(value.span()), what);
    };
    if address.port() == 0 {
        let what = format!("port 0 cannot be found by others: write a port, such as {port}");
        return fail(Some(value.span()), what);
    }
    Ok(address)
}

/// Closed by default: nothing off the loopback range without secret and password.
fn closed(
    typed: &[Spanned<NodeFile>],
    nodes: &[Node],
    no_secret: bool,
    no_password: bool,
) -> Checked<()> {
    let missing = match (no_secret, no_password) {
        (true, true) => "neither secret nor password is set",
        (true, false) => "no secret is set",
        _ => "no password is set",
    };
    for (table, node) in typed.iter().zip(nodes) {
        for (purpose, address, value) in addresses(table.get_ref(), node) {
            if loopback(address.ip()) {
                continue;
            }
            let what = format!(
                "the {purpose} address {address} of node {} can be reached from other machines, \
                 and {missing}: use an address of 127.0.0.0/8 or [::1], or set both secret and \
                 password, here or as DYNAMO_SECRET and DYNAMO_PASSWORD",
                node.id
            );
            return fail(place(value), what);
        }
    }
    Ok(())
}

fn loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
