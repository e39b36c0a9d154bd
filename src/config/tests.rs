//! One test a rule, with the text a person would read.

use super::*;

const SHIPPED: &str = include_str!("../../cluster.toml");

/// Three nodes and what comes before them.
fn ring_of_three(head: &str) -> String {
    let mut text = format!("{head}\n");
    for (id, n) in [(1, 1), (2, 2), (3, 3)] {
        text.push_str(&format!(
            "[[node]]\nid = {id}\nclient = \"127.0.0.1:110{n}\"\npeer = \"127.0.0.1:120{n}\"\n\
             http = \"127.0.0.1:130{n}\"\n"
        ));
    }
    text
}

fn parse(text: &str) -> Result<Cluster, ConfigError> {
    Cluster::parse(Path::new("cluster.toml"), text, &Environment::default())
}

/// The first line of the message for a file.
fn finding(text: &str) -> String {
    parse(text).unwrap_err().to_string().lines().next().unwrap().to_owned()
}

/// The first line of the message for three nodes under `head`.
fn head(head: &str) -> String {
    finding(&ring_of_three(head))
}

/// The first line of the message for three nodes of which `from` is replaced.
fn node(from: &str, to: &str) -> String {
    let text = ring_of_three("");
    assert!(text.contains(from), "{from} is not in the file");
    finding(&text.replacen(from, to, 1))
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn shipped_file_is_the_defaults() {
    let shipped = parse(SHIPPED).unwrap();
    let nodes: Vec<_> = [5554, 5556, 5558, 5560, 5562]
        .into_iter()
        .zip((0..).step_by(4))
        .map(|(id, step)| Node {
            id: NodeId(id),
            client: address(11108 + step),
            peer: address(12108 + step),
            http: address(13108 + step),
        })
        .collect();
    let expected = Cluster {
        file: "cluster.toml".into(),
        nodes,
        replication: Replication::Quorum,
        replicas: 3,
        read_quorum: 2,
        write_quorum: 2,
        request_timeout: Duration::from_millis(100),
        hedge_after: Duration::from_millis(10),
        deadline: Duration::from_secs(2),
        tombstone_grace: Duration::from_secs(3600),
        durability: Durability::Sync,
        workers: 0,
        limits: Limits::default(),
        level: LevelFilter::Info,
        flow: Flow::default(),
        secret: None,
        password: None,
    };
    assert_eq!(shipped, expected);
    // Without any key but the nodes it is the same.
    let nodes_only = &SHIPPED[SHIPPED.find("\n[[node]]").unwrap()..];
    assert_eq!(parse(nodes_only).unwrap(), expected);
}

#[test]
fn settings_are_one_nodes_view() {
    let cluster = parse(SHIPPED).unwrap();
    let settings = cluster.settings(NodeId(5558), Path::new("data")).unwrap();
    assert_eq!(settings.me, NodeId(5558));
    assert_eq!(settings.listen, address(12116));
    assert_eq!(settings.data_dir, Path::new("data/5558"));
    let peers: Vec<_> =
        settings.peers.iter().map(|peer| (peer.id.0, peer.address.port())).collect();
    assert_eq!(peers, [(5554, 12108), (5556, 12112), (5560, 12120), (5562, 12124)]);
    let order: Vec<_> = settings.ring.nodes().map(|id| id.0).collect();
    assert_eq!(order, [5562, 5556, 5554, 5558, 5560]);
    assert_eq!(settings.ring.replicas(), 3);
    assert_eq!(
        cluster.settings(NodeId(7), Path::new("data")).unwrap_err().to_string(),
        "cluster.toml: has no node 7: name one of 5554, 5556, 5558, 5560, 5562"
    );
}

#[test]
fn identity_is_ids_strategy_and_quorums_and_not_addresses() {
    let id = |text: &str| parse(text).unwrap().cluster_id();
    let base = ring_of_three("");
    assert_eq!(id(&base), Position::of(b"quorum, 3 replicas, read 2, write 2 1 2 3").prefix());
    assert_eq!(id(&base), id(&base.replace("127.0.0.1:1", "127.0.0.2:1")));
    assert_eq!(id(&base), id(&ring_of_three("deadline = \"3s\"")));
    assert_ne!(id(&base), id(&base.replace("id = 3", "id = 4")));
    assert_ne!(id(&base), id(&ring_of_three("write_quorum = 3")));
    assert_ne!(id(&base), id(&ring_of_three("replicas = 1")));
}

#[test]
fn syntax_errors_have_their_place_and_a_mend() {
    let see = ": see the comments of the shipped cluster.toml for how it is written";
    let text = head("replicas = \n");
    assert!(text.starts_with("cluster.toml:1:12: ") && text.ends_with(see), "{text}");
    let text = head("replicas = \"3\"");
    assert_eq!(text, format!("cluster.toml:1:12: invalid type: string \"3\", expected u32{see}"));
    let text = head("deadlin = \"2s\"");
    assert!(
        text.starts_with("cluster.toml:1:1: unknown field `deadlin`, expected one of"),
        "{text}"
    );
    assert!(text.ends_with(": correct its spelling or remove it"), "{text}");
    let text = head("[limits]\nvalue_byte = \"1MiB\"");
    assert!(text.starts_with("cluster.toml:2:1: unknown field `value_byte`"), "{text}");
    let text = head("replicas = 3\nreplicas = 3");
    assert!(text.starts_with("cluster.toml:2:1: duplicate key"), "{text}");
    assert!(text.ends_with(": keep one of the two"), "{text}");
}

#[test]
fn units_are_explained() {
    assert_eq!(
        head("deadline = \"2 parsecs\""),
        "cluster.toml:1:12: \"2 parsecs\" is not a duration: write a whole number with its unit, \
         such as \"100ms\", \"2s\", \"1m\" or \"1h\""
    );
    assert_eq!(
        head("[limits]\nvalue_bytes = \"1MB\""),
        "cluster.toml:2:15: \"1MB\" is not a size: write a whole number with its unit, such as \
         \"512B\", \"64KiB\", \"1MiB\" or \"1GiB\""
    );
}

#[test]
fn choices_are_named() {
    assert_eq!(
        head("replication = \"raft\""),
        "cluster.toml:1:15: replication \"raft\" is unknown: write \"quorum\" or \"chain\""
    );
    let chain = parse(&ring_of_three("replication = \"chain\"")).unwrap();
    assert_eq!(chain.replication, Replication::Chain);
    assert_eq!(chain.strategy(), "chain, 3 replicas");
    assert_eq!(
        head("durability = \"never\""),
        "cluster.toml:1:14: durability \"never\" is unknown: write \"sync\" or \"os\""
    );
    assert_eq!(
        head("[logging]\nlevel = \"loud\""),
        "cluster.toml:2:9: level \"loud\" is unknown: write \"off\", \"error\", \"warn\", \
         \"info\", \"debug\" or \"trace\""
    );
    assert_eq!(parse(&ring_of_three("durability = \"os\"")).unwrap().durability, Durability::Os);
    assert_eq!(
        head("workers = 65"),
        "cluster.toml:1:11: workers is a number of threads, at most 64: write no more than the \
         machine has processors, or 0 for none"
    );
    assert_eq!(parse(&ring_of_three("workers = 64")).unwrap().workers, 64);
}

#[test]
fn quorums_must_overlap() {
    assert_eq!(
        head("replicas = 2"),
        "cluster.toml:1:12: replicas = 2 is not possible: write 1, 3 or 5"
    );
    assert_eq!(
        head("replicas = 5"),
        "cluster.toml:1:12: 5 replicas need at least as many nodes, and the file has 3: add \
         [[node]] tables or lower replicas"
    );
    let why = "does not work with 3 replicas, because any two quorums must have a node in common \
               (read_quorum + write_quorum > replicas, write_quorum * 2 > replicas, read_quorum * \
               2 > replicas): write 2 to 3";
    for quorum in ["read_quorum", "write_quorum"] {
        for wrong in ["1", "4"] {
            let text = head(&format!("{quorum} = {wrong}"));
            let column = quorum.len() + 4;
            assert_eq!(text, format!("cluster.toml:1:{column}: {quorum} = {wrong} {why}"));
        }
    }
    let one = parse(&ring_of_three("replicas = 1")).unwrap();
    assert_eq!((one.read_quorum, one.write_quorum), (1, 1));
}

#[test]
fn times_are_bounded_and_ordered() {
    assert_eq!(
        head("request_timeout = \"0ms\""),
        "cluster.toml:1:19: request_timeout = \"0ms\" is out of range: write 1ms to 1m"
    );
    assert_eq!(
        head("deadline = \"61s\""),
        "cluster.toml:1:12: deadline = \"61s\" is out of range: write 1ms to 1m"
    );
    assert_eq!(
        head("hedge_after = \"0ms\""),
        "cluster.toml:1:15: hedge_after = \"0ms\" is out of range: write 1ms to 1m"
    );
    assert_eq!(
        head("request_timeout = \"2s\""),
        "cluster.toml:1:19: request_timeout = \"2s\" leaves no time for another attempt within \
         deadline = \"2s\": make it less than the deadline"
    );
    assert_eq!(
        head("tombstone_grace = \"79s\""),
        "cluster.toml:1:19: tombstone_grace = \"79s\" could forget a deletion while an older \
         request is still under way: write at least \"80s\" (ten deadlines and a minute)"
    );
    parse(&ring_of_three("tombstone_grace = \"80s\"")).unwrap();
}

#[test]
fn limits_fit_together() {
    assert_eq!(
        head("[limits]\nkey_bytes = \"65KiB\""),
        "cluster.toml:2:13: key_bytes = \"65KiB\" is out of range: write \"1B\" to \"64KiB\""
    );
    assert_eq!(
        head("[limits]\nvalue_bytes = \"2MiB\""),
        "cluster.toml:2:15: frame_bytes = \"2MiB\" cannot carry a record with the largest value \
         and key: write at least \"3MiB\" (value_bytes + key_bytes + 896KiB of results + 64KiB \
         for the rest), or lower value_bytes"
    );
    assert_eq!(
        head("[limits]\npeer_bytes = \"3MiB\""),
        "cluster.toml:2:14: peer_bytes = \"3MiB\" must hold two frames: write at least \"4MiB\""
    );
    assert_eq!(
        head("[limits]\nclient_output_bytes = \"1MiB\""),
        "cluster.toml:2:23: client_output_bytes = \"1MiB\" must hold two of the largest values: \
         write at least \"2MiB\""
    );
    for count in ["requests", "clients", "coordinators"] {
        let text = head(&format!("[limits]\n{count} = 0"));
        let column = count.len() + 4;
        let what = "must be at least 1: without any, nothing works";
        assert_eq!(text, format!("cluster.toml:2:{column}: {count} {what}"));
    }
    let more = "[limits]\nvalue_bytes = \"2MiB\"\nframe_bytes = \"3MiB\"\nrequests = 7";
    let limits = parse(&ring_of_three(more)).unwrap().limits;
    assert_eq!((limits.value_bytes, limits.frame_bytes, limits.requests), (2 << 20, 3 << 20, 7));
}

#[test]
fn nodes_are_complete_and_distinct() {
    assert_eq!(
        finding(""),
        "cluster.toml: there is no [[node]] table: add one for each node, with id, client, peer \
         and http"
    );
    assert_eq!(
        node("id = 2", "id = 1"),
        "cluster.toml:8:6: node 1 is there twice: give one of the two another id"
    );
    for wrong in ["0", "-1", "4294967295", "4294967296"] {
        assert_eq!(
            node("id = 1", &format!("id = {wrong}")),
            format!(
                "cluster.toml:3:6: id = {wrong} is out of range: write a whole number from 1 to \
                 4294967294"
            )
        );
    }
    assert_eq!(
        node("id = 1\n", ""),
        "cluster.toml:2:1: this node has no id: add a line such as id = 5554"
    );
    assert_eq!(
        node("peer = \"127.0.0.1:1202\"\n", ""),
        "cluster.toml:7:1: node 2 has no peer address: add a line such as peer = \
         \"127.0.0.1:12108\""
    );
}

#[test]
fn addresses_are_ip_and_port_and_distinct() {
    assert_eq!(
        node("127.0.0.1:1101", "localhost:1101"),
        "cluster.toml:4:10: \"localhost:1101\" is not an address: write IP:port, such as \
         \"127.0.0.1:11108\" or \"[::1]:11108\" (names are not looked up)"
    );
    assert_eq!(
        node("127.0.0.1:1201", "127.0.0.1:0"),
        "cluster.toml:5:8: port 0 cannot be found by others: write a port, such as 12108"
    );
    assert_eq!(
        node("127.0.0.1:1302", "127.0.0.1:1201"),
        "cluster.toml:11:8: 127.0.0.1:1201 is already the peer address of node 1: give the http \
         address of node 2 another port"
    );
    assert_eq!(
        node("127.0.0.1:1301", "127.0.0.1:1101"),
        "cluster.toml:6:8: node 1 has port 1101 for both client and http: give one of them another \
         port"
    );
    parse(&ring_of_three("").replace("127.0.0.1:1102", "[::1]:1102")).unwrap();
}

/// The file with one address of node 2 off the loopback range.
fn open(address: &str, head: &str) -> String {
    ring_of_three(head).replacen("127.0.0.1:1202", address, 1)
}

#[test]
fn closed_by_default() {
    let refusal = |missing: &str, address: &str, line: u32| {
        format!(
            "cluster.toml:{line}:8: the peer address {address} of node 2 can be reached from other \
             machines, and {missing}: use an address of 127.0.0.0/8 or [::1], or set both secret \
             and password, here or as DYNAMO_SECRET and DYNAMO_PASSWORD"
        )
    };
    for address in ["0.0.0.0:1202", "10.0.0.2:1202", "[::]:1202", "192.168.1.9:1202"] {
        let expected = refusal("neither secret nor password is set", address, 10);
        assert_eq!(finding(&open(address, "")), expected);
    }
    let one = |head: &str| finding(&open("10.0.0.2:1202", head));
    assert_eq!(one("secret = \"x\""), refusal("no password is set", "10.0.0.2:1202", 10));
    assert_eq!(one("password = \"x\""), refusal("no secret is set", "10.0.0.2:1202", 10));
    for address in ["127.8.9.1:1202", "[::1]:1202", "[::ffff:127.0.0.1]:1202"] {
        parse(&open(address, "")).unwrap();
    }
    let both = open("10.0.0.2:1202", "secret = \"s\"\npassword = \"p\"");
    let settings = parse(&both).unwrap().settings(NodeId(1), Path::new("data")).unwrap();
    assert_eq!(settings.secret.as_deref(), Some("s"));
}

#[test]
fn environment_wins_over_the_file() {
    let hidden = |text: &str| Some(Hidden(text.to_owned()));
    let environment = Environment { secret: hidden("es"), password: hidden("ep") };
    let load = |text: &str, environment: &Environment| {
        Cluster::parse(Path::new("cluster.toml"), text, environment)
    };
    let cluster = load(&open("10.0.0.2:1202", "secret = \"fs\""), &environment).unwrap();
    assert_eq!((cluster.secret.clone(), cluster.password.clone()), (hidden("es"), hidden("ep")));
    let printed = format!("{cluster:?}");
    assert!(printed.contains("secret: Some((hidden))"), "{printed}");
    let broken = Environment { secret: None, password: hidden("a\nb") };
    assert_eq!(
        load(&ring_of_three(""), &broken).unwrap_err().to_string(),
        "cluster.toml: DYNAMO_PASSWORD in the environment has control characters: use printable \
         ones only"
    );
}

#[test]
fn secrets_are_usable() {
    assert_eq!(
        head("password = \"\""),
        "cluster.toml:1:12: password is empty: write a long random text or remove it"
    );
    assert_eq!(
        head("secret = \"a\\nb\""),
        "cluster.toml:1:10: secret has control characters: use printable ones only"
    );
    let long = "x".repeat(1025);
    assert_eq!(
        head(&format!("secret = \"{long}\"")),
        "cluster.toml:1:10: secret is longer than 1024 characters: shorten it"
    );
}

#[test]
fn peer_at_the_unspecified_address_cannot_be_dialled() {
    let text = open("0.0.0.0:1202", "secret = \"s\"\npassword = \"p\"");
    let cluster = parse(&text).unwrap();
    cluster.settings(NodeId(2), Path::new("data")).unwrap();
    assert_eq!(
        cluster.settings(NodeId(1), Path::new("data")).unwrap_err().to_string(),
        "cluster.toml: node 1 cannot connect to node 2 at 0.0.0.0:1202: give that node's real \
         address in this node's file"
    );
}

#[test]
fn file_that_cannot_be_read_is_named() {
    let error = Cluster::load(Path::new("no/such.toml"), &Environment::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("no/such.toml: cannot be read (No such file"), "{text}");
    assert!(text.ends_with("or name it with --config FILE"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let load = || Cluster::load(&path, &Environment::default()).unwrap_err().to_string();
    std::fs::write(&path, b"a = \"\xff\"").unwrap();
    assert_eq!(load(), format!("{}: is not text: save it as UTF-8", path.display()));
    std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(load().contains("is longer than 1048576 bytes"), "{}", load());
}
