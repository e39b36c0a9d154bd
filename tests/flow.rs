//! Every diagram is complete: a thousand random requests on five real processes that are killed and
//! paused, with everything recorded. Each receipt has its sending, each record its cause, each answer
//! leads back to its command; what is missing is what a killed node had not yet written.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use simpledynamo::{
    config::{Cluster, Environment},
    flow::{Book, Line, Story, diagram, diagram::Row, gather, text},
};
use simpledynamo_actors::flow::{Event, RecordId};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const IDS: [u32; 5] = [5554, 5556, 5558, 5560, 5562];
const REQUESTS: u64 = 1_000;
const CLIENTS: u64 = 6;
const KEYS: u64 = 12;
/// Far above anything a healthy ring needs; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// A client leaves a node that is silent for longer than any deadline.
const SILENCE: Duration = Duration::from_secs(5);

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Five nodes.
struct Home {
    dir: TempDir,
    clients: Vec<SocketAddr>,
    up: Child,
}

impl Home {
    /// Nodes that record as `flow` says.
    fn start(flow: &str) -> Home {
        let listeners: Vec<_> =
            (0..15).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
        drop(listeners);
        let mut file = format!("[logging]\nflow = \"{flow}\"\n");
        for (id, [client, peer, http]) in IDS.iter().zip(addresses.as_chunks().0) {
            file.push_str(&format!(
                "[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\"\n"
            ));
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cluster.toml"), file).unwrap();
        let clients = addresses.as_chunks().0.iter().map(|[client, _, _]| *client).collect();
        let mut up = command(dir.path(), &["up"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(up.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("redis-cli")), "the ring did not start");
        Home { dir, clients, up }
    }

    fn does(&self, arguments: &[&str]) {
        let output = command(self.dir.path(), arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Ends every node in order, so that all it recorded is written.
    fn stop(&self) {
        for id in IDS {
            let file = self.dir.path().join(format!("data/{id}/pid"));
            let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
            let node = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(node, nix::sys::signal::Signal::SIGTERM).unwrap();
            wait("a node has ended", || nix::sys::signal::kill(node, None).is_err());
        }
    }

    fn cluster(&self) -> Cluster {
        let file = self.dir.path().join("cluster.toml");
        Cluster::load(&file, &Environment::default()).unwrap()
    }

    /// What the nodes have in memory.
    fn remembered(&self) -> Book {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut book, wanted) = (Book::default(), gather::Wanted::default());
        let silent = runtime.block_on(gather::ask_nodes(&self.cluster(), &wanted, &mut book));
        assert!(silent.is_empty(), "{silent:?}");
        book
    }

    fn book(&self) -> Book {
        let (path, cluster) = (self.dir.path(), self.cluster());
        let mut book = Book::default();
        let wanted = gather::Wanted::default();
        gather::read_files(&cluster, &path.join("data"), &wanted, &mut book).unwrap();
        book
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for id in IDS {
            // Whatever is left of them; those that `start` started outlive `up`.
            let _ = command(self.dir.path(), &["kill", &id.to_string()]).output();
        }
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynamo"));
    for variable in ["DYNAMO_SECRET", "DYNAMO_PASSWORD", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.current_dir(home).args(arguments).stderr(Stdio::null());
    command
}

/// One request and its answer; whether there was one.
fn ask(stream: &mut BufReader<TcpStream>, words: &[&str]) -> std::io::Result<String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if let Some(length) = line.strip_prefix('$').and_then(|rest| rest.trim().parse::<usize>().ok())
    {
        let mut value = vec![0; length + 2];
        stream.read_exact(&mut value)?;
    }
    Ok(line)
}

/// Asks at random nodes until told to stop.
fn work(me: u64, clients: &[SocketAddr], stop: &AtomicBool, done: &AtomicU64) {
    let mut chance = 0x9e37_79b9_7f4a_7c15 ^ me;
    let mut below = move |end: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % end
    };
    let mut connection: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::SeqCst) {
        if connection.is_none() || below(10) == 0 {
            let node = clients[below(clients.len() as u64) as usize];
            connection = TcpStream::connect(node).ok().map(BufReader::new);
            if let Some(stream) = &connection {
                stream.get_ref().set_read_timeout(Some(SILENCE)).unwrap();
            }
        }
        let Some(stream) = &mut connection else { continue };
        let key = format!("key {}", below(KEYS));
        let words: &[&str] = match below(5) {
            0 | 1 => &["GET", &key],
            2 => &["SET", &key, "7"],
            3 => &["INCR", &key],
            _ => &["DEL", &key],
        };
        match ask(stream, words) {
            Ok(_) => {
                done.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => connection = None,
        }
    }
}

/// Follows the causes of an answer back to the command, or to what a node that was killed had not yet
/// written.
fn leads_to_its_command(book: &Book, story: &Story, reply: RecordId) -> bool {
    let mut next = vec![reply];
    let mut seen = BTreeSet::new();
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(line) = book.get(id) else {
            if book.died_before(id) {
                return true;
            }
            continue;
        };
        if line.event == Event::Command && line.request == Some(story.request) {
            return true;
        }
        // What lets a round begin may be another request's end; this one came by its own message.
        let joins = |own: &&Line| own.event == Event::Join && own.cause == Some(id);
        let leads = line.request == Some(story.request);
        if line.event == Event::Round && (leads || story.lines.iter().any(|own| joins(&own))) {
            let asked = |own: &&Line| own.event == Event::Send && own.kind == "Request";
            next.extend(story.lines.iter().filter(asked).map(Line::id));
        }
        next.extend(line.cause);
        next.extend(line.message);
    }
    false
}

/// What is wrong with a story; `disturbed` nodes may lose messages.
fn faults(book: &Book, story: &Story, disturbed: &[u32]) -> Vec<String> {
    let mut faults = story.missing.clone();
    let reply = story.lines.iter().find(|line| line.event == Event::Reply);
    match reply {
        Some(reply) if !leads_to_its_command(book, story, reply.id()) => {
            faults.push("the answer does not lead back to the command".to_owned());
        }
        Some(_) => {}
        None => {
            let (router, life) = (story.request.router, story.request.incarnation);
            let next = RecordId { node: router, incarnation: life, seq: u64::MAX };
            if !book.died_before(next) {
                faults.push("no answer, and its router did not die".to_owned());
            }
        }
    }
    let drawn = diagram(story);
    for row in &drawn.rows {
        let Row::Arrow(arrow) = row else { continue };
        let ends = [arrow.from, arrow.to].map(|column| drawn.columns[column].node);
        if arrow.travel.is_none() && !ends.iter().any(|node| disturbed.contains(node)) {
            faults.push(format!("lost between {ends:?}: {}", arrow.label));
        }
    }
    faults
}

#[test]
fn every_diagram_of_a_thousand_requests_is_complete_under_kills_and_pauses() {
    let home = Home::start("all");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|me| {
            let (clients, stop, done) = (home.clients.clone(), stop.clone(), done.clone());
            thread::spawn(move || work(me, &clients, &stop, &done))
        })
        .collect();
    let goal = |requests: u64| {
        let from = done.load(Ordering::SeqCst);
        wait("the clients get on", || done.load(Ordering::SeqCst) >= from + requests);
    };
    goal(100);
    for (killed, paused) in [("5558", "5560"), ("5562", "5554")] {
        home.does(&["kill", killed]);
        goal(80);
        home.does(&["start", killed]);
        goal(80);
        home.does(&["pause", paused]);
        goal(60);
        home.does(&["resume", paused]);
        goal(80);
    }
    wait("a thousand requests are done", || done.load(Ordering::SeqCst) >= REQUESTS);
    stop.store(true, Ordering::SeqCst);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    home.stop();

    let book = home.book();
    assert_eq!(book.skipped(), 0);
    let requests = book.summaries();
    let commands = book.lines().filter(|line| line.event == Event::Command).count();
    assert!(commands as u64 >= REQUESTS, "{commands} requests");
    let disturbed = [5558, 5560, 5562, 5554];
    for summary in &requests {
        let story = book.story(summary.request).unwrap();
        let faults = faults(&book, &story, &disturbed);
        let drawn = text::draw(&diagram(&story));
        assert!(faults.is_empty(), "{faults:#?}\n{drawn}");
        assert!(
            drawn.lines().all(|line| line.chars().count() <= text::WIDTH || !line.contains('│'))
        );
    }
    control(&book);
}

/// By default a receipt is taken down only where nothing that it led to says it. Of what is in memory,
/// asked for from outside, the diagrams are whole all the same.
#[test]
fn receipts_that_are_not_taken_down_are_drawn_all_the_same() {
    let home = Home::start("sampled");
    let mut connections: Vec<_> =
        home.clients.iter().map(|node| BufReader::new(TcpStream::connect(node).unwrap())).collect();
    for turn in 0..40 {
        for (at, connection) in connections.iter_mut().enumerate() {
            let key = format!("key {}", (turn + at) % 7);
            let words: &[&str] = if turn % 2 == 0 { &["SET", &key, "7"] } else { &["GET", &key] };
            ask(connection, words).unwrap();
        }
    }
    let mut stories = Vec::new();
    wait("all that was sent has come in", || {
        let book = home.remembered();
        // The nodes' own requests, from their start, met others that were not there yet.
        let asked = book.summaries().into_iter().filter(|summary| summary.key.starts_with("key "));
        stories = asked.map(|summary| book.story(summary.request).unwrap()).collect();
        let gap = stories.iter().find(|story| !gaps(story).is_empty());
        if let Some(story) = gap {
            eprintln!("{:#?}\n{}", gaps(story), text::draw(&diagram(story)));
        }
        stories.len() == 200 && gap.is_none()
    });
    let (mut told, mut inferred) = (0, 0);
    for story in stories {
        let receipts = story.lines.iter().filter(|line| line.event == Event::Receive);
        let (guessed, taken): (Vec<_>, Vec<_>) = receipts.partition(|line| line.inferred);
        (told, inferred) = (told + taken.len(), inferred + guessed.len());
    }
    assert!(inferred > told, "{told} receipts were taken down, {inferred} were not");
}

/// What is missing of a story, and messages of which nothing says that they came in or why not.
fn gaps(story: &Story) -> Vec<String> {
    let mut gaps = story.missing.clone();
    for row in diagram(story).rows {
        let Row::Arrow(arrow) = row else { continue };
        if arrow.lost == "never received" {
            gaps.push(format!("{} was not received", arrow.label));
        }
    }
    gaps
}

/// The check objects where one record is taken away.
fn control(book: &Book) {
    let received: BTreeSet<_> = book
        .lines()
        .filter(|line| line.event == Event::Receive)
        .filter_map(|line| line.message)
        .collect();
    let gone = book.lines().find(|line| {
        line.event == Event::Send && line.request.is_some() && received.contains(&line.id())
    });
    let gone = gone.unwrap().clone();
    let mut less = Book::default();
    book.lines().filter(|line| line.id() != gone.id()).for_each(|line| less.add(line.clone()));
    let story = less.story(gone.request.unwrap()).unwrap();
    assert!(!faults(&less, &story, &IDS).is_empty(), "the sending {} is not missed", gone.id());
}
