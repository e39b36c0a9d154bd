//! What records have in common, kept once: lives of nodes and texts, of which there are few.
//!
//! Caveats. Numbers of records and requests are kept modulo 2⁴⁸. Where more than [`LIVES_MAX`] lives
//! were named, by very many starts or by a peer that invents them, the eldest give way, and records of
//! theirs that are still in memory bear a wrong name. Texts are the program's own and fit.

use super::record::RecordId;
use crate::bridge::codec::Told;
use simpledynamo_protocol::{recent::OpId, ring::NodeId};

/// Lives of nodes that are told apart: each node of a large ring in some of its lives.
const LIVES_MAX: usize = 1 << 10;
/// Texts that are told apart: names of messages, commands and reasons.
const TEXTS_MAX: usize = 1 << 8;
/// Places that are looked at first, by a hash of what is looked for: nearly always the right ones.
const HINTS: usize = 64;
/// The bits of a number beside its life.
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;
const NUMBER_BITS: u32 = 48;
/// The place of this node's present life.
const OWN: u64 = 1;

/// What this node calls a record of any node, in eight bytes: the place of its life in the tables,
/// and its number. It means nothing to another node, which is told a [`RecordId`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name(u64);

impl Name {
    /// No record.
    pub const NONE: Name = Name(0);

    /// Of the record of this number of this node's present life.
    pub(super) const fn own(seq: u64) -> Name {
        Name(OWN << NUMBER_BITS | seq & NUMBER)
    }

    /// Whether it names one.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.0 & NUMBER != 0
    }
}

/// Lives and texts by their places.
pub(super) struct Tables {
    life_hints: [u16; HINTS],
    text_hints: [u8; HINTS],
    lives: Vec<(NodeId, u64)>,
    /// The place whose life gives way next, once all are taken.
    eldest: usize,
    texts: Vec<&'static str>,
}

impl Tables {
    /// Those of this life of a node.
    pub(super) fn new(node: NodeId, incarnation: u64) -> Tables {
        Tables {
            life_hints: [0; HINTS],
            text_hints: [0; HINTS],
            // No life has the place 0, and so has no text.
            lives: vec![(NodeId(0), 0), (node, incarnation)],
            eldest: 2,
            texts: vec![""],
        }
    }

    fn life(&mut self, node: NodeId, incarnation: u64) -> u64 {
        let life = (node, incarnation);
        let slot = slot(u64::from(node.0) ^ incarnation.rotate_left(32));
        let hint = self.life_hints.get(slot).map_or(0, |hint| usize::from(*hint));
        if self.lives.get(hint) == Some(&life) {
            return hint as u64;
        }
        let at = self.lives.iter().position(|other| *other == life);
        let at = at.unwrap_or_else(|| self.new_life(life));
        if let (Some(hint), Ok(at)) = (self.life_hints.get_mut(slot), u16::try_from(at)) {
            *hint = at;
        }
        at as u64
    }

    fn new_life(&mut self, life: (NodeId, u64)) -> usize {
        if self.lives.len() < LIVES_MAX {
            self.lives.push(life);
            return self.lives.len() - 1;
        }
        let at = self.eldest;
        self.eldest = if at + 1 < LIVES_MAX { at + 1 } else { 2 };
        if let Some(gone) = self.lives.get_mut(at) {
            *gone = life;
        }
        at
    }

    /// A text's place.
    pub(super) fn text(&mut self, text: &'static str) -> u8 {
        if text.is_empty() {
            return 0;
        }
        let slot = slot(text.as_ptr().addr() as u64);
        let hint = self.text_hints.get(slot).copied().unwrap_or_default();
        let hinted = self.texts.get(usize::from(hint));
        if hinted.is_some_and(|other| std::ptr::eq(*other, text)) {
            return hint;
        }
        // The same text may stand at two places of the program: then it has two places here.
        let at = self.texts.iter().position(|other| std::ptr::eq(*other, text));
        let at = at.unwrap_or_else(|| {
            if self.texts.len() < TEXTS_MAX {
                self.texts.push(text);
            }
            self.texts.len() - 1
        });
        let at = u8::try_from(at).unwrap_or(u8::MAX);
        if let Some(hint) = self.text_hints.get_mut(slot) {
            *hint = at;
        }
        at
    }

    /// The text at a place.
    pub(super) fn text_at(&self, at: u8) -> &'static str {
        self.texts.get(usize::from(at)).copied().unwrap_or_default()
    }

    fn pack(&mut self, node: NodeId, incarnation: u64, number: u64) -> u64 {
        if number == 0 {
            return 0;
        }
        self.life(node, incarnation) << NUMBER_BITS | number & NUMBER
    }

    fn unpack(&self, packed: u64) -> (NodeId, u64, u64) {
        let life = usize::try_from(packed >> NUMBER_BITS).unwrap_or(usize::MAX);
        let (node, incarnation) = self.lives.get(life).copied().unwrap_or((NodeId(0), 0));
        (node, incarnation, packed & NUMBER)
    }

    /// A record's name here.
    pub(super) fn name(&mut self, id: RecordId) -> Name {
        Name(self.pack(id.node, id.incarnation, id.seq))
    }

    /// A record's name everywhere.
    pub(super) fn id(&self, name: Name) -> RecordId {
        let (node, incarnation, seq) = self.unpack(name.0);
        RecordId { node, incarnation, seq }
    }

    /// A record's name for a message to another node.
    pub(super) fn told(&self, name: Name) -> Told {
        match name {
            Name::NONE => Told::Nothing,
            Name(own) if own >> NUMBER_BITS == OWN => Told::Own(own & NUMBER),
            other => Told::Other(self.id(other)),
        }
    }

    /// A request as records name it.
    pub(super) fn request(&mut self, request: OpId) -> u64 {
        self.pack(request.router, request.incarnation, request.seq)
    }

    /// The request again.
    pub(super) fn op(&self, request: u64) -> OpId {
        let (router, incarnation, seq) = self.unpack(request);
        OpId { router, incarnation, seq }
    }
}

/// The hint for a number: the highest bits of its product with 2⁶⁴ by the golden ratio.
fn slot(number: u64) -> usize {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> (u64::BITS - HINTS.ilog2())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_lives_push_out_the_eldest_and_no_more() {
        let own = (NodeId(5554), 7);
        let mut tables = Tables::new(own.0, own.1);
        let op = |number| OpId { router: NodeId(5556), incarnation: number, seq: 1 };
        for number in 1..100_000 {
            tables.request(op(number));
        }
        assert_eq!(tables.lives.len(), LIVES_MAX);
        let packed = tables.request(op(100_000));
        assert_eq!(tables.op(packed), op(100_000));
        assert_eq!(tables.unpack(0), (NodeId(0), 0, 0), "no life keeps its place");
        let id = RecordId { node: own.0, incarnation: own.1, seq: 3 };
        assert_eq!(tables.id(Name::own(3)), id, "the own life keeps its place");
    }

    #[test]
    fn a_name_leads_back_to_its_record() {
        let mut tables = Tables::new(NodeId(5554), 7);
        let own = RecordId { node: NodeId(5554), incarnation: 7, seq: 3 };
        assert_eq!(tables.name(own), Name::own(3));
        assert_eq!(tables.told(Name::own(3)), Told::Own(3));
        let elsewhere = RecordId { node: NodeId(5556), incarnation: 7, seq: 3 };
        let name = tables.name(elsewhere);
        assert_eq!((tables.id(name), tables.told(name)), (elsewhere, Told::Other(elsewhere)));
        assert_eq!(tables.name(RecordId::NONE), Name::NONE);
        assert_eq!(tables.told(Name::NONE), Told::Nothing);
    }

    #[test]
    fn a_text_leads_back_to_itself_whatever_the_hints_say() {
        let mut tables = Tables::new(NodeId(5554), 7);
        let texts: Vec<&'static str> = (0..200).map(|at| &*at.to_string().leak()).collect();
        let places: Vec<u8> = texts.iter().map(|text| tables.text(text)).collect();
        for (text, place) in texts.iter().zip(places) {
            assert_eq!((tables.text_at(place), tables.text(text)), (*text, place));
        }
    }
}
