//! The verdict: every complete slice goes through the checker, and the replicas must be equal.
//!
//! Each key of a slice is first read once more, at one node after another, so that what was
//! acknowledged and is not there shows. The checker runs on a thread of its own while the clients go
//! on. At the end the three copies of each key of the last [`SLICES_COMPARED`] slices are compared.

use super::{
    super::{
        Failure,
        client::{Client, Reply},
    },
    Shared,
    load::Worker,
    slices::{Slice, key},
};
use simpledynamo_protocol::{
    checker,
    command::Command,
    history::{History, Outcome},
};
use std::{collections::BTreeMap, io, rc::Rc, time::Duration};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep},
};

/// Times a last read is tried, at one node after another.
const READS_MAX: usize = 10;
/// Last reads on one connection.
const READS_A_NODE: usize = 25;
/// Slices whose keys are compared at the end: with more, a long run would end late.
pub(super) const SLICES_COMPARED: u32 = 20;
/// How long replicas may take to be equal once all is healed: a pass of anti-entropy, twice.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to say what it stores.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How often replicas that differ are compared again.
const LOOK: Duration = Duration::from_millis(50);

/// What the checker said of all slices.
#[derive(Default)]
pub(super) struct Judged {
    /// Slices.
    pub(super) slices: u32,
    /// Their operations.
    pub(super) operations: usize,
    /// Their keys.
    pub(super) keys: usize,
    /// Keys that no register explains.
    pub(super) wrong: usize,
    /// Keys whose search passed its limit.
    pub(super) undecided: usize,
    /// Keys whose last read got no answer.
    pub(super) unread: usize,
    /// The first report that is not "linearizable".
    pub(super) first: Option<String>,
}

/// Judges slices until there are no more.
pub(super) async fn judge(
    shared: Rc<Shared>,
    mut complete: mpsc::Receiver<Slice>,
) -> Result<Judged, Failure> {
    let mut judged = Judged::default();
    let mut reader = Worker::new(shared.clients, Rc::clone(&shared));
    while let Some(mut slice) = complete.recv().await {
        judged.unread += last_reads(&shared, &mut reader, &mut slice).await?;
        let history = History { operations: slice.operations };
        let check = move || (checker::check(&history), history);
        let (report, history) = spawn_blocking(check).await.map_err(io::Error::other)?;
        judged.slices += 1;
        judged.operations += report.operations;
        judged.keys += report.keys;
        judged.wrong += report.wrong.len();
        judged.undecided += report.undecided.len() + report.unchecked.len();
        shared.checked.set(judged.slices);
        if !report.is_linearizable() && judged.first.is_none() {
            let file = shared.dir.join(format!("slice-{}.jsonl", slice.number));
            save(&file, &history)?;
            judged.first = Some(format!("{report}\nthe slice is in {}", file.display()));
        }
    }
    Ok(judged)
}

/// Adds a read of every key to its slice; how many keys gave no answer.
async fn last_reads(
    shared: &Shared,
    reader: &mut Worker,
    slice: &mut Slice,
) -> Result<usize, Failure> {
    let mut unread = 0;
    for index in 0..shared.keys {
        if index % READS_A_NODE == 0 {
            reader.go_to(index / READS_A_NODE);
        }
        let mut answered = false;
        for _ in 0..READS_MAX {
            if !reader.connected().await {
                break;
            }
            let operation = reader.perform(key(slice.number, index).0, Command::Get).await;
            shared.slices.borrow_mut().note(&operation)?;
            answered = matches!(operation.outcome, Outcome::Reply(_));
            slice.operations.push(operation);
            if answered {
                break;
            }
        }
        unread += usize::from(!answered);
    }
    Ok(unread)
}

fn save(file: &std::path::Path, history: &History) -> Result<(), Failure> {
    let mut text = Vec::new();
    for operation in &history.operations {
        serde_json::to_writer(&mut text, operation).map_err(io::Error::from)?;
        text.push(b'\n');
    }
    Ok(std::fs::write(file, text)?)
}

/// Waits until the replicas of every key of the last slices hold the same value, version and ballot:
/// how many keys were compared, and those that stay different.
pub(super) async fn compare(shared: &Shared, slices: u32) -> Result<(usize, Vec<String>), Failure> {
    let password = shared.cluster.password.as_ref().map(|password| password.0.as_str());
    let mut clients = BTreeMap::new();
    for node in &shared.cluster.nodes {
        clients.insert(node.id, Client::connect(node, password).await?);
    }
    let (mut compared, mut different) = (0, Vec::new());
    let end = Instant::now() + PATIENCE;
    for slice in slices.saturating_sub(SLICES_COMPARED)..slices {
        for index in 0..shared.keys {
            let (key, _) = key(slice, index);
            let seen = loop {
                let mut seen: Vec<Reply> = Vec::new();
                for id in shared.ring.replicas_of(&key) {
                    if let Some(client) = clients.get_mut(&id) {
                        seen.push(client.call(&[b"DYNAMO", b"LOCAL", &key], ANSWER_TIME).await?);
                    }
                }
                let equal = seen.windows(2).all(|two| two.first() == two.last());
                if equal || Instant::now() > end {
                    break (!equal).then_some(seen);
                }
                sleep(LOOK).await;
            };
            compared += 1;
            different.extend(seen.map(|seen| format!("{key}: {seen:?}")));
        }
    }
    Ok((compared, different))
}
