//! What takes time on a simulated ring: clients, single operations, looks at a node.

use super::{
    Client, Clients, Cluster, Failure, Held, Id, Mix, Pairs, Sim, World,
    node::{SimNode, State},
};
use crate::messages::{
    AskStatus, Completed, Execute, LocalPage, NodeHandle, ScanPage, Status, Verdict,
};
use simpledynamo_protocol::{
    command::{Command, Reply},
    history::{History, Operation, Outcome},
    record::{Key, Record},
    ring::NodeId,
};
use std::{cell::RefCell, collections::BTreeMap, future::Future, rc::Rc, time::Duration};
use tokio::sync::oneshot;

/// Simulated time after which clients that are not through are stuck: far above any deadline.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// Simulated time after which a node that was asked how it is does not answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Rows or keys asked for at once.
const ROWS: u32 = 1_000;
/// The number that single operations have as a client.
const NOBODY: u32 = u32::MAX;

impl Sim {
    /// So many clients, each at nodes drawn at random.
    pub fn clients(&mut self, count: u32) -> Clients<'_, Sim> {
        Cluster::clients(self, count)
    }

    /// A client of this node.
    pub fn client(&mut self, node: impl Id) -> Client<'_, Sim> {
        let node = self.known(node);
        Cluster::client(self, node)
    }

    /// How each running node is, by its own word; nodes that start or stand still are left out.
    ///
    /// # Errors
    /// An actor has died, or a rule was broken.
    pub fn statuses(&mut self) -> Result<BTreeMap<NodeId, Status>, Failure> {
        let told: Rc<RefCell<BTreeMap<NodeId, Status>>> = Rc::default();
        let mut asked = 0;
        for node in self.world.nodes.values().filter(|node| !node.paused) {
            let Some(handle) = node.handle() else { continue };
            let (told, id) = (told.clone(), node.id());
            asked += 1;
            node.spawn(async move {
                if let Ok(status) = handle.status.send(AskStatus).await {
                    told.borrow_mut().insert(id, status);
                }
            });
        }
        let all = told.clone();
        self.run(Duration::from_secs(1), |_| all.borrow().len() == asked)?;
        Ok(told.take())
    }

    /// Why a node ended itself; none where it did not.
    #[must_use]
    pub fn ended(&self, node: impl Id) -> Option<String> {
        match self.nodes.get(&self.known(node))?.state() {
            State::Failed(why) => Some(why),
            State::Down | State::Starting | State::Running(_) => None,
        }
    }

    /// What is on a node's disk of a key, whether it runs or not.
    #[must_use]
    pub fn stored(&self, node: impl Id, key: &str) -> Option<Record> {
        let rows = self.nodes.get(&self.known(node))?.disk.rows();
        rows.into_iter().find(|(of, _)| **of == *key.as_bytes()).map(|(_, record)| record)
    }

    /// One operation at a node, from its call to its end, which is not noted in the history.
    pub(super) fn ask_key(
        &mut self,
        node: NodeId,
        key: Key,
        command: Command,
    ) -> Result<Outcome, Failure> {
        let Some(handle) = self.world.nodes.get(&node).and_then(SimNode::handle) else {
            return Ok(Outcome::Unknown);
        };
        let (reply, mut end) = oneshot::channel();
        handle.execute.do_send(Execute { key, command, keep: false, reply });
        drop(handle);
        let mut outcome = None;
        self.run(PATIENCE, |_| {
            outcome = match end.try_recv() {
                Ok(Completed { verdict: Verdict::Reply(reply), .. }) => Some(Outcome::Reply(reply)),
                Ok(Completed { verdict: Verdict::NotApplied(_), .. }) => Some(Outcome::NotApplied),
                Ok(Completed { verdict: Verdict::Unknown, .. })
                | Err(oneshot::error::TryRecvError::Closed) => Some(Outcome::Unknown),
                Err(oneshot::error::TryRecvError::Empty) => None,
            };
            outcome.is_some()
        })?;
        outcome.ok_or_else(|| self.failure("an operation never ends"))
    }

    /// Asks a node from inside, as its front ends do.
    fn inside<T: 'static, F: Future<Output = Option<T>> + 'static>(
        &mut self,
        node: NodeId,
        question: impl FnOnce(NodeHandle) -> F,
    ) -> Result<T, Failure> {
        let told: Rc<RefCell<Option<T>>> = Rc::default();
        let running = self.world.nodes.get(&node).and_then(|node| Some((node, node.handle()?)));
        let Some((process, handle)) = running else {
            return Err(self.failure(&format!("{node} is down and cannot be asked")));
        };
        let (question, answer) = (question(handle), told.clone());
        process.spawn(async move {
            let found = question.await;
            *answer.borrow_mut() = found;
        });
        self.run(ANSWER_TIME, |_| told.borrow().is_some())?;
        let told = told.borrow_mut().take();
        told.ok_or_else(|| self.failure(&format!("{node} does not answer")))
    }
}

/// One operation as a front end hands it in; none where the node ends meanwhile.
async fn execute(node: &NodeHandle, key: Key, command: Command) -> Option<Completed> {
    let (reply, end) = oneshot::channel();
    node.execute.do_send(Execute { key, command, keep: false, reply });
    end.await.ok()
}

async fn local(node: NodeHandle) -> Option<Pairs> {
    let (mut pairs, mut from) = (Pairs::new(), Some(0));
    while let Some(at) = from {
        let page = node.local_page.send(LocalPage { from: at, rows: ROWS }).await.ok()?;
        for (key, record) in page.rows {
            if let Some(value) = record.datum.value() {
                pairs.insert(key.to_string(), value.to_string());
            }
        }
        from = page.next;
    }
    Some(pairs)
}

async fn all(node: NodeHandle) -> Option<Pairs> {
    let (mut pairs, mut from) = (Pairs::new(), Some(0));
    while let Some(at) = from {
        let page = node.scan.send(ScanPage { from: at, rows: ROWS }).await.ok()?.ok()?;
        for key in page.keys {
            match execute(&node, key.clone(), Command::Get).await?.verdict {
                Verdict::Reply(Reply::Bulk(value)) => {
                    pairs.insert(key.to_string(), value.to_string());
                }
                // Deleted between the page and the read.
                Verdict::Reply(_) => {}
                Verdict::NotApplied(_) | Verdict::Unknown => return None,
            }
        }
        from = page.next;
    }
    Some(pairs)
}

impl Cluster for Sim {
    type Later = World;

    fn seed(&self) -> u64 {
        Sim::seed(self)
    }

    fn after(&mut self, span: Duration, what: impl FnOnce(&mut World) + 'static) {
        self.world.after(span, what);
    }

    fn advance(&mut self, span: Duration) -> Result<(), Failure> {
        Sim::advance(self, span)
    }

    fn until_serving(&mut self) -> Result<(), Failure> {
        Sim::until_serving(self)
    }

    fn heal_and_settle(&mut self) -> Result<(), Failure> {
        Sim::heal_and_settle(self)
    }

    fn begin(&mut self, clients: u32, mix: Mix, operations: u64) {
        let now = self.world.now();
        let world = &mut self.world;
        world.clients.begin(clients, mix, operations, now, &mut world.rng);
    }

    fn progress(&mut self, operations: u64) -> Result<(), Failure> {
        let goal = self.world.clients.ended.saturating_add(operations);
        if self.run(PATIENCE, |world| world.clients.ended >= goal)? {
            Ok(())
        } else {
            Err(self.failure("an operation never ends"))
        }
    }

    fn finish(&mut self) -> Result<History, Failure> {
        self.world.clients.stop();
        if self.run(PATIENCE, |world| world.clients.done())? {
            Ok(Cluster::history(self))
        } else {
            Err(self.failure("an operation never ends"))
        }
    }

    fn history(&self) -> History {
        History { operations: self.world.clients.operations.clone() }
    }

    fn refused(&self) -> Vec<String> {
        self.world.clients.refused.clone()
    }

    fn ask(&mut self, node: NodeId, key: &str, command: Command) -> Result<Outcome, Failure> {
        let node = self.known(node);
        let (key, call) = (Key::from(key), self.world.now());
        let outcome = self.ask_key(node, key.clone(), command.clone())?;
        let returned = Some(self.world.now()).filter(|_| outcome != Outcome::Unknown);
        let outcome_told = outcome.clone();
        self.world.clients.asked.push(node);
        let done =
            Operation { client: NOBODY, key, command, call, returned, outcome: outcome_told };
        self.world.clients.operations.push(done);
        Ok(outcome)
    }

    fn held(&mut self, node: impl Id, key: &str) -> Result<Option<Held>, Failure> {
        let node = self.known(node);
        if !self.world.is_running(node) {
            return Ok(None);
        }
        let found = self.stored(node, key);
        Ok(found.map(|Record { stamp, datum, .. }| Held { value: datum.value().cloned(), stamp }))
    }

    fn local(&mut self, node: impl Id) -> Result<Pairs, Failure> {
        let node = self.known(node);
        self.inside(node, local)
    }

    fn all(&mut self, node: impl Id) -> Result<Pairs, Failure> {
        let node = self.known(node);
        self.inside(node, all)
    }

    fn holders(&mut self, key: &str) -> Result<Vec<NodeId>, Failure> {
        let ring = self.world.nodes.values().next().map(|node| node.settings.ring.clone());
        Ok(ring.map(|ring| ring.replicas_of(key.as_bytes())).unwrap_or_default())
    }

    fn explain(&mut self, failure: Failure) -> Failure {
        let replay = self.replay();
        if failure.text.contains(&replay) {
            return failure;
        }
        Failure { text: format!("{failure}\n{replay}") }
    }
}
