//! A replica holds only what it accepted itself or what is chosen. Otherwise two replicas could
//! show one state that no quorum chose, and a read that trusts two would return it. Source:
//! register.md, "Two answers with the same (ballot, version) = chosen".

use super::{Fact, Violation, chosen::Chosen, object};

#[derive(Debug, Default)]
pub struct Held;

impl Held {
    pub fn check(&self, fact: &Fact, chosen: &Chosen) -> Result<(), Violation> {
        match fact {
            Fact::Installed { at, key, record } if !chosen.is_chosen(key, record.stamp) => {
                object("held", format!("{at} installed {key} {record}, which is not chosen"))
            }
            _ => Ok(()),
        }
    }
}
