//! The `dynamo` command from outside: its messages, its exit codes, and the life of five processes.
//!
//! Ports are free ones, data lies in temporary directories, and the processes
//! end with the test: `up` is stopped on drop, and its nodes end with it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const IDS: [u32; 5] = [5554, 5556, 5558, 5560, 5562];

fn dynamo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynamo"));
    for variable in ["DYNAMO_SECRET", "DYNAMO_PASSWORD", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// Exit code, standard output, standard error.
fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    told(dynamo().args(arguments).output().unwrap())
}

/// A configuration and a data directory of its own, with free ports.
struct Home {
    dir: TempDir,
    clients: Vec<u16>,
}

impl Home {
    fn new() -> Home {
        let ports = free_ports(15);
        let mut text = String::new();
        for (id, ports) in IDS.iter().zip(ports.chunks(3)) {
            text.push_str(&format!(
                "[[node]]\nid = {id}\nclient = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\nhttp = \
                 \"127.0.0.1:{}\"\n",
                ports[0], ports[1], ports[2]
            ));
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cluster.toml"), text).unwrap();
        Home { dir, clients: ports.chunks(3).map(|ports| ports[0]).collect() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A subcommand in this home.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = dynamo();
        command.current_dir(self.path()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        told(self.command(arguments).output().unwrap())
    }

    /// A subcommand that must succeed; its standard output.
    fn done(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    }

    /// The states of all nodes, by id.
    fn states(&self) -> Vec<(u64, String)> {
        let (_, out, _) = self.run(&["status", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        let mut states: Vec<_> = json
            .as_array()
            .unwrap()
            .iter()
            .map(|node| {
                let state = node["state"].as_str().unwrap().to_owned();
                (node["id"].as_u64().unwrap(), state)
            })
            .collect();
        states.sort();
        states
    }

    fn up(&self) -> Up {
        self.up_by(&mut self.command(&["up"]))
    }

    fn up_by(&self, command: &mut Command) -> Up {
        let child = command
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.path().join("up.err")).unwrap())
            .spawn()
            .unwrap();
        let mut up = Up { child, lines: Vec::new() };
        // Reading ends with the last line that is looked for; what comes later is not read.
        for line in BufReader::new(up.child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let last = line.contains("redis-cli");
            up.lines.push(line);
            if last {
                return up;
            }
        }
        panic!("up ended: {}", self.notes());
    }

    /// What `up` has told on standard error.
    fn notes(&self) -> String {
        fs::read_to_string(self.path().join("up.err")).unwrap()
    }
}

/// A running `up`.
struct Up {
    child: Child,
    lines: Vec<String>,
}

impl Up {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGTERM; its exit code.
    fn stop(mut self) -> i32 {
        self.signal("-TERM");
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Its nodes end with it, whatever ends it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many ports that nobody has; none twice in this process. From below the range that the system
/// takes the ports of outgoing connections from: one of those could get a node's before the node.
fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u32 = 14_000;
    const COUNT: u32 = 18_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another test process at the same time starts elsewhere.
    let start = std::process::id().wrapping_mul(977);
    let candidates = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
    candidates
        .map(|n| u16::try_from(FIRST + start.wrapping_add(n) % COUNT).unwrap())
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect()
}

/// Waits for a condition.
fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn help_names_every_subcommand_and_shows_examples() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for word in [
        "up",
        "node",
        "kill",
        "pause",
        "resume",
        "start",
        "status",
        "check-config",
        "get",
        "set",
        "del",
        "--config",
        "--data-dir",
        "Examples:",
        "DYNAMO_PASSWORD",
        "Exit codes",
    ] {
        assert!(out.contains(word), "{word} is missing: {out}");
    }
    assert!(!out.contains('\x1b'), "colours without a terminal: {out}");
    let (code, _, err) = run(&[]);
    assert_eq!(code, 2);
    assert!(err.contains("Usage: dynamo"), "{err}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for wrong in [["dance"].as_slice(), &["kill"], &["kill", "x"], &["get"], &["up", "--fast"]] {
        assert_eq!(run(wrong).0, 2, "{wrong:?}");
    }
    let home = Home::new();
    for command in ["node", "kill", "pause", "resume", "start"] {
        let (code, _, err) = home.run(&[command, "7"]);
        let expected = "error: cluster.toml: has no node 7: name one of 5554, 5556, 5558, 5560, \
                        5562\n";
        assert_eq!((code, err.as_str()), (2, expected), "{command}");
    }
}

#[test]
fn shipped_configuration_is_right() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster.toml");
    let (code, out, err) = run(&["check-config", "--config", shipped]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("cluster.toml is right: 5 nodes, 3 replicas"), "{out}");
    let order: Vec<_> = IDS.iter().map(|id| out.find(&format!("\n  {id} ")).unwrap()).collect();
    let [n5554, n5556, n5558, n5560, n5562] = order.try_into().unwrap();
    assert!(n5562 < n5556 && n5556 < n5554 && n5554 < n5558 && n5558 < n5560, "{out}");
}

#[test]
fn broken_configuration_is_exit_code_2_and_starts_nothing() {
    let home = Home::new();
    let path = home.path().join("cluster.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("replicas = 4\n{text}")).unwrap();
    for command in [["check-config"].as_slice(), &["up"], &["node", "5554"], &["start", "5554"]] {
        let (code, out, err) = home.run(command);
        let expected = "error: cluster.toml:1:12: replicas = 4 is not possible: write 1, 3 or 5\n    \
                        1 | replicas = 4\n      |            ^\n";
        assert_eq!((code, out.as_str(), err.as_str()), (2, "", expected), "{command:?}");
    }
    assert!(!home.path().join("data").exists());
    let (code, _, err) = home.run(&["up", "--config", "none.toml"]);
    assert_eq!(code, 2);
    assert!(err.contains("none.toml: cannot be read"), "{err}");
}

#[test]
fn addresses_off_the_loopback_range_are_refused_unless_closed() {
    let home = Home::new();
    let path = home.path().join("cluster.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("127.0.0.1", "0.0.0.0", 1)).unwrap();
    for command in [["check-config"].as_slice(), &["up"], &["node", "5554"]] {
        let (code, _, err) = home.run(command);
        assert_eq!(code, 2, "{command:?}");
        assert!(err.contains("cluster.toml:3:10: the client address 0.0.0.0:"), "{err}");
        assert!(err.contains("neither secret nor password is set"), "{err}");
        assert!(err.contains("DYNAMO_SECRET and DYNAMO_PASSWORD"), "{err}");
    }
    let mut closed = home.command(&["check-config"]);
    closed.env("DYNAMO_SECRET", "s").env("DYNAMO_PASSWORD", "p");
    assert_eq!(told(closed.output().unwrap()).0, 0);
}

#[test]
fn up_runs_the_ring_until_it_is_stopped() {
    let home = Home::new();
    let up = home.up();
    for (id, port) in IDS.iter().zip(&home.clients) {
        let pid = fs::read_to_string(home.path().join(format!("data/{id}/pid"))).unwrap();
        let line = up.lines.iter().find(|line| line.starts_with(&id.to_string())).unwrap();
        assert!(line.contains(&format!("pid {} ", pid.trim())), "{line}");
        assert!(line.contains(&format!("client 127.0.0.1:{port} ")), "{line}");
        assert!(line.ends_with("% of the ring"), "{line}");
    }
    let last = up.lines.last().unwrap();
    assert_eq!(*last, format!("redis-cli -p {} set greeting hello", home.clients[0]));
    assert_eq!(home.states(), IDS.map(|id| (id.into(), "serving".to_owned())));

    let (code, _, err) = home.run(&["up"]);
    assert_eq!(code, 1);
    assert!(err.contains("another `up` runs in data"), "{err}");
    let (code, _, err) = home.run(&["node", "5554"]);
    assert_eq!(code, 1);
    assert!(err.contains("node 5554 is already running in data/5554"), "{err}");
    let (code, _, err) = home.run(&["start", "5554"]);
    assert_eq!(code, 1);
    assert!(err.contains("node 5554 is already running (pid "), "{err}");

    assert_eq!(up.stop(), 0);
    for (id, port) in IDS.iter().zip(&home.clients) {
        assert!(!home.path().join(format!("data/{id}/pid")).exists());
        TcpListener::bind(("127.0.0.1", *port)).unwrap();
    }
    assert_eq!(home.states(), IDS.map(|id| (id.into(), "down".to_owned())));
}

#[test]
fn keys_are_set_read_and_deleted_at_any_live_node() {
    let home = Home::new();
    let (code, _, err) = home.run(&["get", "k"]);
    assert_eq!(code, 1);
    assert!(err.contains("no node answers"), "{err}");
    let up = home.up();
    assert_eq!(home.done(&["set", "k", "-v 1"]), "OK\n");
    assert_eq!(home.done(&["get", "k"]), "-v 1\n");
    assert_eq!(home.done(&["del", "k"]), "1\n");
    assert_eq!(home.done(&["del", "k"]), "0\n");
    let (code, out, err) = home.run(&["get", "k"]);
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", "error: there is no key \"k\"\n"));
    home.done(&["kill", "5554"]);
    assert_eq!(home.done(&["set", "k", "v"]), "OK\n");
    assert_eq!(home.done(&["get", "k"]), "v\n");
    assert_eq!(up.stop(), 0);
}

#[test]
fn nodes_are_killed_paused_resumed_and_started() {
    let home = Home::new();
    let up = home.up();
    let state = |id: u64| home.states().into_iter().find(|one| one.0 == id).unwrap().1;

    assert!(home.done(&["pause", "5556"]).contains(" paused; let it go on with: "));
    assert_eq!(state(5556), "paused");
    let (code, _, err) = home.run(&["start", "5556"]);
    assert_eq!(code, 1);
    assert!(err.contains("node 5556 is paused"), "{err}");
    assert!(home.done(&["resume", "5556"]).contains(" goes on"));
    assert_eq!(state(5556), "serving");
    assert!(home.done(&["resume", "5556"]).contains(" was not paused"));

    assert!(home.done(&["kill", "5558"]).contains("start 5558"));
    assert_eq!(state(5558), "down");
    for command in ["kill", "pause", "resume"] {
        let (code, _, err) = home.run(&[command, "5558"]);
        assert_eq!(code, 1, "{command}");
        assert!(err.contains("node 5558 is not running in data/5558: start it with: "), "{err}");
    }
    until("the note", || home.notes().contains("start 5558"));
    assert!(
        home.notes().contains("was ended by SIGKILL; bring it back with: "),
        "{}",
        home.notes()
    );
    assert!(home.done(&["start", "5558"]).starts_with("5558  pid "));
    assert_eq!(state(5558), "serving");

    // It is no child of `up`, and yet stopped by it; as is a paused one.
    home.done(&["pause", "5560"]);
    assert_eq!(up.stop(), 0);
    assert_eq!(home.states(), IDS.map(|id| (id.into(), "down".to_owned())));
}

#[test]
fn nodes_end_with_an_up_that_is_killed() {
    let home = Home::new();
    let up = home.up();
    drop(up);
    let running = |id| home.path().join(format!("data/{id}/pid")).exists();
    until("the end of all nodes", || !IDS.iter().any(running));
    // What the killed one has left is not in the way.
    assert_eq!(home.up().stop(), 0);
}

#[test]
fn hangup_stops_up_but_not_under_nohup() {
    let home = Home::new();
    // The tests themselves may run under nohup, whose children ignore the signal too.
    let mut heeding = Command::new("env");
    heeding.arg("--default-signal=HUP").arg(env!("CARGO_BIN_EXE_dynamo")).arg("up");
    let mut up = home.up_by(heeding.current_dir(home.path()));
    up.signal("-HUP");
    assert_eq!(up.child.wait().unwrap().code(), Some(0));
    assert!(home.notes().contains("SIGHUP: stopping 5 nodes"), "{}", home.notes());

    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_dynamo")).arg("up").current_dir(home.path());
    let up = home.up_by(&mut command);
    up.signal("-HUP");
    assert_eq!(home.states(), IDS.map(|id| (id.into(), "serving".to_owned())));
    assert_eq!(up.stop(), 0);
    assert!(home.notes().contains("SIGTERM: stopping 5 nodes"), "{}", home.notes());
}

#[test]
fn stale_pid_file_is_not_believed() {
    let home = Home::new();
    let dir = home.path().join("data/5554");
    fs::create_dir_all(&dir).unwrap();
    // A living process that is no node: this test.
    fs::write(dir.join("pid"), format!("{}\n", std::process::id())).unwrap();
    let (code, _, err) = home.run(&["kill", "5554"]);
    assert_eq!(code, 1);
    assert!(err.contains("node 5554 is not running"), "{err}");
    assert_eq!(home.up().stop(), 0);
}

#[test]
fn port_in_use_is_named_before_anything_is_started() {
    let home = Home::new();
    let _taken = TcpListener::bind(("127.0.0.1", home.clients[2])).unwrap();
    for command in [["up"].as_slice(), &["start", "5558"], &["node", "5558"]] {
        let (code, out, err) = home.run(command);
        assert_eq!((code, out.as_str()), (1, ""), "{command:?}");
        let port = home.clients[2];
        let expected = format!(
            "the client address 127.0.0.1:{port} of node 5558 is in use by another process"
        );
        assert!(err.contains(&expected), "{err}");
    }
    assert!(!home.path().join("data/5554/log").exists(), "a node was started");
}

#[test]
fn node_that_cannot_start_is_named_with_its_log() {
    let home = Home::new();
    // A directory where the pid file goes: the node cannot claim it.
    fs::create_dir_all(home.path().join("data/5560/pid")).unwrap();
    let (code, out, err) = home.run(&["up"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("node 5560 did not start, it ended with exit code 1"), "{err}");
    assert!(err.contains("data/5560/log") && err.contains("cannot claim data/5560/pid"), "{err}");
    assert_eq!(home.states(), IDS.map(|id| (id.into(), "down".to_owned())), "others run on");
}

#[test]
fn one_node_runs_in_the_foreground_and_stops_cleanly() {
    let log = runs_and_stops(&Home::new());
    assert!(!log.contains("workers"), "{log}");
}

#[test]
fn node_with_workers_has_them_and_stops_cleanly() {
    let home = Home::new();
    let path = home.path().join("cluster.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("workers = 3\n{text}")).unwrap();
    let log = runs_and_stops(&home);
    assert!(log.contains("keys are spread over 3 workers"), "{log}");
}

/// What the node says while it is up.
fn runs_and_stops(home: &Home) -> String {
    let mut said = String::new();
    for signal in ["-TERM", "-INT"] {
        let mut node = home.command(&["node", "5554"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(node.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("node 5554 is up") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the node has ended");
            said.push_str(&line);
        }
        assert!(line.contains(" INFO  5554 "), "{line}");
        let pid = fs::read_to_string(home.path().join("data/5554/pid")).unwrap();
        assert_eq!(pid.trim(), node.id().to_string());
        assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        assert_eq!(node.wait().unwrap().code(), Some(0), "{rest}");
        assert!(rest.contains("stopped"), "{rest}");
        assert!(!home.path().join("data/5554/pid").exists());
    }
    said
}

#[test]
fn password_closes_clients_and_pages_and_the_commands_give_it() {
    let home = Home::new();
    let path = home.path().join("cluster.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("password = \"open sesame\"\n{text}")).unwrap();
    let up = home.up();
    assert!(up.lines.last().unwrap().contains("--askpass set greeting hello"));
    assert_eq!(home.done(&["set", "k", "v"]), "OK\n");
    assert_eq!(home.states()[0].1, "serving");
    let mut stranger = home.command(&["status"]);
    stranger.env("DYNAMO_PASSWORD", "wrong");
    let (code, out, _) = told(stranger.output().unwrap());
    assert_eq!(code, 1);
    assert!(out.contains("401 Unauthorized"), "{out}");
    assert_eq!(up.stop(), 0);
}
