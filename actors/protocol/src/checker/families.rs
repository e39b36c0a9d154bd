//! Leaving out whole families of operations while a wrong history is made smaller.
//!
//! To leave out a write is not sound by itself: what it explained would become wrong. But let `F` be
//! a set of operations such that every other operation either is blind (fits everywhere, always
//! leaves the same) or fits in no state that an operation of `F` could make. Then an order of the
//! whole history stays one without `F`: before each operation that is not blind, the last one to
//! change the state was none of `F`, and made by the same argument the same state as before. So
//! where the rest has no order, the whole has none. `F` grows from a few operations by all that
//! might have seen what they made.
//!
//! Caveat: an operation that fits almost everywhere (a failed condition, a length) joins most
//! families. Those that change nothing are left out first, and the reply of a DEL that found
//! something is forgotten where it is not needed.

use super::{
    register::{Asked, Register},
    search::{Makes, Model, Timed},
    shrink::{Item, Judge},
};
use crate::command::{Command, Reply};

/// Questions "could this have seen that" asked in all; what is found until then counts.
const QUESTIONS_MAX: usize = 10_000_000;

/// `items`, which have no order, without the families that do not matter.
pub(super) fn leave_out(judge: &Judge, items: Vec<Item>) -> Vec<Item> {
    let register = judge.register;
    let items = by_groups(items, |items, group| {
        let pure = |item: &Item| register.is_pure(&item.1.op);
        let rest = |(at, item): (usize, &Item)| (!group(at) || !pure(item)).then(|| item.clone());
        let rest: Vec<Item> = items.iter().enumerate().filter_map(rest).collect();
        (rest.len() < items.len() && judge.impossible(&rest)).then_some(rest)
    });
    let forgetful: Vec<Item> = items.iter().map(forget_found).collect();
    let items = if judge.impossible(&forgetful) { forgetful } else { items };
    let mut questions = 0;
    by_groups(items, |items, group| {
        if questions > QUESTIONS_MAX {
            return None;
        }
        let family = family(register, items, group, &mut questions);
        let rest = items.iter().zip(&family).filter(|(_, inside)| !**inside);
        let rest: Vec<Item> = rest.map(|(item, _)| item.clone()).collect();
        judge.impossible(&rest).then_some(rest)
    })
}

/// Offers ever smaller groups of positions to `smaller`, which gives what is left without a group.
fn by_groups(
    mut items: Vec<Item>,
    mut smaller: impl FnMut(&[Item], &dyn Fn(usize) -> bool) -> Option<Vec<Item>>,
) -> Vec<Item> {
    let mut size = items.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < items.len() {
            match smaller(&items, &|position| (at..at + size).contains(&position)) {
                Some(rest) => items = rest,
                None => at += size,
            }
        }
        if size == 1 {
            return items;
        }
        size = size.div_ceil(2);
    }
}

/// DEL that found something, as one that is only known to have taken place.
fn forget_found((index, op): &Item) -> Item {
    let mut op = op.clone();
    if let Asked { command: Command::Del, reply: reply @ Some(Reply::Int(1)) } = &mut op.op {
        *reply = None;
    }
    (*index, op)
}

/// By item: whether it is of the family of those of which `seed` says so.
fn family(
    register: Register,
    items: &[Item],
    seed: impl Fn(usize) -> bool,
    questions: &mut usize,
) -> Vec<bool> {
    let mut inside: Vec<bool> = (0..items.len()).map(seed).collect();
    let mut fresh: Vec<&Item> =
        items.iter().zip(&inside).filter(|(_, inside)| **inside).map(|(item, _)| item).collect();
    while let Some((_, maker)) = fresh.pop() {
        let makes = register.makes(&maker.op);
        for (item, inside) in items.iter().zip(&mut inside).filter(|(_, inside)| !**inside) {
            *questions += 1;
            if could_see(register, maker, &makes, &item.1) {
                *inside = true;
                fresh.push(item);
            }
        }
    }
    inside
}

/// Whether `op` could tell a state that `maker` made from others.
fn could_see(
    register: Register,
    maker: &Timed<Asked>,
    makes: &Makes<<Register as Model>::State>,
    op: &Timed<Asked>,
) -> bool {
    if register.is_blind(&op.op) {
        return false;
    }
    match makes {
        Makes::Nothing => false,
        Makes::One(state) => register.step(state, &op.op).is_some(),
        Makes::Some => {
            register.needs(&op.op).is_none_or(|state| register.may_make(&maker.op, &state))
        }
    }
}
