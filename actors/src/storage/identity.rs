//! Who this node is across restarts, and whether it can prove that it kept all it acknowledged.
//!
//! A replica that forgets an acknowledged record breaks the quorum, so a node must know when it may
//! have forgotten (register.md, "Recovery"). It is a **learner**, who copies before it votes, when
//! - its store was damaged or is gone,
//! - it ran with unsynced commits, did not stop in order, and the machine has been started since,
//! - its directory is new although its peers know it under another store id (they tell it).
//!
//! The start count, `incarnation`, is raised durably before it is used: names made of it are never
//! used again. A directory of another node, cluster or strategy is refused.
//!
//! Caveat: every change rewrites the file with two syncs, a few milliseconds; all are rare (a start,
//! an admission, a peer's start), none belongs in a request's way.

use super::{
    Durability, Place, StoreError,
    identity_file::{Content, FORMAT, Hex, Peer},
};
use simpledynamo_protocol::ring::NodeId;
use std::{collections::BTreeMap, fs};

/// What the configuration says of this node, and what the machine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Who.
    pub node: NodeId,
    /// Digest of ids, strategy and quorums.
    pub cluster: u64,
    /// Replication and quorums as a person reads them: `quorum, 3 replicas, read 2, write 2`.
    pub strategy: String,
    /// When a write will count as kept.
    pub durability: Durability,
    /// The machine's boot, from [`boot_id`]; empty where it cannot be told.
    pub boot: String,
    /// From where a new store counts its starts. A node that lost its directory must not count
    /// again from 1: Unix milliseconds lead over any number of starts, and peers say where they
    /// know a later one.
    pub first_incarnation: u64,
}

/// What this node remembers of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// The store under which it was first met.
    pub store: u64,
    /// Its largest incarnation seen.
    pub incarnation: u64,
}

/// A node's durable identity. What the getters say is on the disk.
#[derive(Debug)]
pub struct Identity {
    place: Place,
    content: Content,
    durability: Durability,
    new: bool,
}

impl Identity {
    /// Reads the identity, or makes one where there is none, checks it and counts this start.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] for another's directory, [`StoreError::Corrupt`], or the operating
    /// system's.
    pub fn open(place: Place, expected: &Expected) -> Result<Identity, StoreError> {
        let old = place.load()?;
        let new = old.is_none();
        let mut content = match old {
            Some(content) => content,
            None => fresh(place.fresh_store()?, expected),
        };
        check_owner(&place, &content, expected)?;
        let unsynced = content.unsynced && !content.clean;
        let same_boot = !expected.boot.is_empty() && content.boot == expected.boot;
        if unsynced && !same_boot {
            lost(&mut content, "it ran with durability = \"os\" and the machine went down");
        }
        // What an earlier life left unsynced stays so until someone syncs: see `synced`.
        content.unsynced = (unsynced && same_boot) || expected.durability == Durability::Os;
        content.clean = false;
        content.boot.clone_from(&expected.boot);
        content.incarnation += 1;
        place.save(&content)?;
        Ok(Identity { place, content, durability: expected.durability, new })
    }

    /// Whether this start made it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// The store's id, random, made with the directory.
    #[must_use]
    pub fn store(&self) -> u64 {
        self.content.store.0
    }

    /// Who.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.content.node)
    }

    /// The count of this start, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.content.incarnation
    }

    /// Whether the peers have welcomed this store: only then may its empty state count as a vote.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.content.member
    }

    /// Why it must copy its records before it votes; none where it need not.
    #[must_use]
    pub fn learner(&self) -> Option<&str> {
        self.content.learner.as_deref()
    }

    /// What was found wrong with the store and is not yet dealt with.
    #[must_use]
    pub fn damaged(&self) -> Option<&str> {
        self.content.damaged.as_deref()
    }

    /// What is remembered of the peers.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<NodeId, KnownPeer> {
        let known = |peer: &Peer| KnownPeer { store: peer.store.0, incarnation: peer.incarnation };
        self.content.peers.iter().map(|peer| (NodeId(peer.node), known(peer))).collect()
    }

    /// The peers have welcomed this store.
    ///
    /// # Errors
    /// The operating system's; then nothing has changed. So for every change below.
    pub fn admit(&mut self) -> Result<(), StoreError> {
        self.change(|content| content.member = true)
    }

    /// This node must copy its records before it votes, in later lives too.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub fn start_learning(&mut self, why: &str) -> Result<(), StoreError> {
        self.change(|content| {
            if content.learner.is_none() {
                lost(content, why);
            }
        })
    }

    /// Whether an earlier life has begun to learn, and nothing was lost since.
    #[must_use]
    pub fn has_begun_learning(&self) -> bool {
        self.content.learner.is_some() && self.content.begun
    }

    /// The store no longer says anything that may have been overtaken while it was lost.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub fn begin_learning(&mut self) -> Result<(), StoreError> {
        self.change(|content| content.begun = true)
    }

    /// Everything has been copied back, durably; this makes it a member too.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub fn end_learning(&mut self) -> Result<(), StoreError> {
        self.change(|content| {
            content.learner = None;
            content.member = true;
        })
    }

    /// The store reported damage. The next start sets it aside and is a learner's.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub fn mark_damaged(&mut self, what: &str) -> Result<(), StoreError> {
        self.change(|content| content.damaged = Some(what.to_owned()))
    }

    /// The damaged store has been set aside: what is left is a learner.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub(super) fn damage_set_aside(&mut self, why: String) -> Result<(), StoreError> {
        self.change(|content| {
            content.damaged = None;
            lost(content, &why);
        })
    }

    /// All that earlier lives committed has been synced.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub fn synced(&mut self) -> Result<(), StoreError> {
        let unsynced = self.durability == Durability::Os;
        self.change(|content| content.unsynced = unsynced)
    }

    /// The node stops in order. Only after the last commit and a sync of the store.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub fn stop_clean(&mut self) -> Result<(), StoreError> {
        self.change(|content| content.clean = true)
    }

    /// Remembers a peer.
    ///
    /// # Errors
    /// See [`Identity::admit`].
    pub fn remember(&mut self, peer: NodeId, known: KnownPeer) -> Result<(), StoreError> {
        self.change(|content| {
            let entry =
                Peer { node: peer.0, store: Hex(known.store), incarnation: known.incarnation };
            content.peers.retain(|other| other.node != peer.0);
            content.peers.push(entry);
            content.peers.sort_by_key(|peer| peer.node);
        })
    }

    /// Changes the file first, then what the getters say; writes nothing where nothing changes.
    fn change(&mut self, edit: impl FnOnce(&mut Content)) -> Result<(), StoreError> {
        let mut content = self.content.clone();
        edit(&mut content);
        if content != self.content {
            self.place.save(&content)?;
            self.content = content;
        }
        Ok(())
    }
}

fn fresh(store: u64, expected: &Expected) -> Content {
    Content {
        format: FORMAT,
        store: Hex(store),
        node: expected.node.0,
        cluster: Hex(expected.cluster),
        strategy: expected.strategy.clone(),
        incarnation: expected.first_incarnation,
        boot: String::new(),
        unsynced: false,
        clean: true,
        member: false,
        learner: None,
        begun: false,
        damaged: None,
        peers: Vec::new(),
    }
}

/// Something that this node acknowledged is gone.
fn lost(content: &mut Content, why: &str) {
    content.learner = Some(why.to_owned());
    content.begun = false;
}

fn check_owner(place: &Place, content: &Content, expected: &Expected) -> Result<(), StoreError> {
    let differs = |what, found: String, expected: String| {
        if found == expected {
            Ok(())
        } else {
            Err(StoreError::Foreign { path: place.path(), what, found, expected })
        }
    };
    differs("node", content.node.to_string(), expected.node.to_string())?;
    differs("strategy", content.strategy.clone(), expected.strategy.clone())?;
    // After the strategy, which is part of it and reads better.
    differs("cluster", content.cluster.to_string(), Hex(expected.cluster).to_string())
}

/// The id of the machine's present boot; empty where the system does not tell, which counts as
/// another one every time.
#[must_use]
pub fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
