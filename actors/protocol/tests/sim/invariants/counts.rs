//! An increment is counted once: a key that is only ever incremented by one never shows more than
//! the increments asked for, and each chosen state exactly its version less what was recorded
//! without effect. Source: RIFL (Lee et al., SOSP '15), §3; register.md, "Exactly once".

use super::{Fact, Violation, object};
use simpledynamo_protocol::record::{Key, Record};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Counts {
    increments: BTreeMap<Key, i64>,
    /// Keys on which something else was asked.
    mixed: BTreeSet<Key>,
}

impl Counts {
    pub fn learn(&mut self, fact: &Fact) {
        match fact {
            Fact::Asked { key, increment: true, .. } => {
                *self.increments.entry(key.clone()).or_default() += 1;
            }
            Fact::Asked { key, .. } => {
                self.mixed.insert(key.clone());
            }
            _ => {}
        }
    }

    pub fn check(&self, key: &Key, record: &Record) -> Result<(), Violation> {
        if self.mixed.contains(key) || key.starts_with(b"chain ") {
            return Ok(());
        }
        let asked = self.increments.get(key).copied().unwrap_or(0);
        let shown = record.datum.value().map_or("0".to_owned(), ToString::to_string);
        if shown.parse::<i64>().is_ok_and(|count| count <= asked) {
            return Ok(());
        }
        object("counts", format!("{key} shows {shown} of {asked} increments asked"))
    }
}
