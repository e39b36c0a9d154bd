//! What nodes say of themselves, and what must be so in the end: every node serves, is level and
//! trusts the others, and each key lies, equal, on exactly the nodes that keep it.

use super::{
    Processes,
    clients::{Connections, Noted},
    fleet::{LOOK, calm, status_of},
};
use crate::{cli::client::Reply as Answer, config::Replication, http::StatusPage};
use simpledynamo_actors::harness::{Failure, Faults, Held, Pairs};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    record::{Key, Value},
    ring::NodeId,
};
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};
use tokio::time::sleep;

impl Processes {
    /// What a node answers to a question that is no operation.
    pub(super) fn say(&mut self, node: NodeId, words: &[&[u8]]) -> Result<Answer, Failure> {
        let index = self.index(node);
        if !self.is_running(node) {
            return Err(self.failure(&format!("{node} is down and cannot be asked")));
        }
        let noted = Rc::clone(&self.ring.noted);
        let mut connections = std::mem::take(&mut self.connections);
        let ask = async move { (connections.call(index, &noted, words).await, connections) };
        let (answer, connections) = self.through("a node answers", ask)?;
        self.connections = connections;
        answer.map_err(|error| self.failure(&format!("{node} does not answer: {error}")))
    }
}

/// Waits until the nodes that are up, and do not stand still, are open for clients and vote; with
/// chains, until they hold all again, too, as in a simulation: a node that is on its way back into a
/// chain is one less that may fail.
pub(super) async fn serving(noted: Rc<Noted>) {
    let chains = noted.cluster.replication == Replication::Chain;
    for node in 0..noted.doors.len() {
        let serves = async || {
            let page = status_of(&noted.cluster, node).await;
            let whole = |page: StatusPage| page.phase == "serving" && (page.level || !chains);
            noted.is_open(node) && page.is_some_and(whole)
        };
        while noted.is_awake(node) && !serves().await {
            sleep(LOOK).await;
        }
    }
}

/// Waits until every node has copied what it missed and nobody suspects anybody.
pub(super) async fn level(noted: Rc<Noted>) {
    for node in 0..noted.doors.len() {
        while !calm(&noted.cluster, node).await {
            sleep(LOOK).await;
        }
    }
}

/// Waits until every key of the history, and every other that a node stores, is the same on all the
/// nodes that keep it and nowhere else; `differs` says what is in the way.
pub(super) async fn equal(noted: Rc<Noted>, differs: Rc<RefCell<String>>) {
    let mut keys: BTreeSet<Key> =
        noted.operations.borrow().iter().map(|operation| operation.key.clone()).collect();
    let mut connections = Connections::default();
    let mut lists = Vec::new();
    for node in 0..noted.doors.len() {
        let answer = connections.call(node, &noted, &[b"DYNAMO", b"LOCAL"]).await;
        let listed = answer.map_err(|error| error.to_string()).and_then(|it| words(&it));
        match listed {
            Ok(words) => {
                lists.push(words.as_chunks().0.iter().map(|[key, _]| key.clone()).collect())
            }
            Err(what) => *differs.borrow_mut() = what,
        }
    }
    keys.extend(lists.into_iter().flat_map(|list: Vec<Vec<u8>>| list).map(Key::from));
    for key in keys {
        while let Err(what) = one(&noted, &mut connections, &key).await {
            *differs.borrow_mut() = what;
            sleep(LOOK).await;
        }
    }
}

/// That a key is where it must be, once.
async fn one(noted: &Noted, connections: &mut Connections, key: &Key) -> Result<(), String> {
    let keepers = noted.cluster.ring().replicas_of(key);
    let mut copies = Vec::new();
    for (index, node) in noted.cluster.nodes.iter().enumerate() {
        let answer = connections.call(index, noted, &[b"DYNAMO", b"LOCAL", key]).await;
        let copy = answer.map_err(|error| error.to_string()).and_then(|answer| held(&answer))?;
        match (keepers.contains(&node.id), copy) {
            (true, copy) => copies.push((node.id, copy)),
            (false, None) => {}
            (false, Some(copy)) => {
                return Err(format!("{} holds {key}, which is not its: {copy}", node.id));
            }
        }
    }
    if copies.windows(2).all(|two| two.first().map(|it| &it.1) == two.last().map(|it| &it.1)) {
        return Ok(());
    }
    let copies: Vec<String> = copies
        .iter()
        .map(|(node, copy)| match copy {
            Some(copy) => format!("{node} {copy}"),
            None => format!("{node} nothing"),
        })
        .collect();
    Err(format!("the replicas of {key} differ: {}", copies.join(", ")))
}

/// An answer that is not what was asked for.
fn strange<T>(answer: &Answer) -> Result<T, String> {
    Err(format!("an answer that was not asked for: {answer:?}"))
}

/// Value, version and ballot, as `DYNAMO LOCAL key` gives them.
pub(super) fn held(answer: &Answer) -> Result<Option<Held>, String> {
    let parts = match answer {
        Answer::Bulk(None) => return Ok(None),
        Answer::Array(parts) => parts.as_slice(),
        _ => return strange(answer),
    };
    let [Answer::Bulk(value), Answer::Integer(version), Answer::Bulk(Some(ballot))] = parts else {
        return strange(answer);
    };
    let ballot = String::from_utf8_lossy(ballot);
    let ballot = ballot.split_once('.').and_then(|(round, node)| {
        Some(Ballot { round: round.parse().ok()?, node: node.parse().ok()? })
    });
    let (Some(ballot), Ok(version)) = (ballot, u64::try_from(*version)) else {
        return strange(answer);
    };
    let value = value.as_ref().map(|bytes| Value::from(bytes.as_slice()));
    Ok(Some(Held { value, stamp: Stamp { ballot, version } }))
}

/// The words of an array.
fn words(answer: &Answer) -> Result<Vec<Vec<u8>>, String> {
    let Answer::Array(words) = answer else { return strange(answer) };
    let word = |word: &Answer| match word {
        Answer::Bulk(Some(bytes)) => Ok(bytes.clone()),
        _ => strange(answer),
    };
    words.iter().map(word).collect()
}

/// Keys and values in turn.
pub(super) fn pairs(answer: &Answer) -> Result<Pairs, String> {
    let words = words(answer)?;
    let text = |bytes: &[u8]| Value::from(bytes).to_string();
    Ok(words.as_chunks().0.iter().map(|[key, value]| (text(key), text(value))).collect())
}

/// Ids of nodes.
pub(super) fn ids(answer: &Answer) -> Result<Vec<NodeId>, String> {
    let Answer::Array(ids) = answer else { return strange(answer) };
    let id = |id: &Answer| match id {
        Answer::Integer(id) => u32::try_from(*id).map(NodeId).or_else(|_| strange(answer)),
        _ => strange(answer),
    };
    ids.iter().map(id).collect()
}
