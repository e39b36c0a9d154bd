//! A replica stores only what it was asked to accept, or what is chosen: anti-entropy may copy a
//! record only once both other replicas have stored that very one. Otherwise two replicas could show
//! a state that no quorum chose, and a read that trusts two would return it. Source: register.md,
//! "Two answers with the same (ballot, version) = chosen"; `register/catchup.rs`.

use simpledynamo_protocol::{ballot::Stamp, message::Message, record::Key, ring::NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// How a record came to be stored, as far as one can tell: one that both others hold may have been
/// copied.
pub(super) enum Way {
    Accepted,
    Copied,
}

#[derive(Default)]
pub(super) struct Held {
    /// Who was asked to accept a state.
    asked: BTreeMap<(Key, Stamp), BTreeSet<NodeId>>,
    /// Who has ever stored it.
    stored: BTreeMap<(Key, Stamp), BTreeSet<NodeId>>,
}

impl Held {
    pub(super) fn sent(&mut self, to: NodeId, message: &Message) {
        if let Message::Accept(ask) = message {
            let state = (ask.key.clone(), ask.record.stamp);
            self.asked.entry(state).or_default().insert(to);
        }
    }

    pub(super) fn stored(
        &mut self,
        at: NodeId,
        key: &Key,
        stamp: Stamp,
    ) -> Result<Way, &'static str> {
        let state = (key.clone(), stamp);
        let asked = self.asked.get(&state).is_some_and(|asked| asked.contains(&at));
        let stored = self.stored.entry(state).or_default();
        let others = stored.iter().filter(|node| **node != at).count();
        stored.insert(at);
        if others >= 2 {
            Ok(Way::Copied)
        } else if stamp.ballot.node == at || asked {
            Ok(Way::Accepted)
        } else {
            Err("a replica stores only what it was asked to accept, or what both others hold")
        }
    }
}
