//! An actor that panics makes the run fail: tokio and actix would let it die alone.
//!
//! A hook in front of the process's own notes panics of threads that simulate just now.

use std::{
    cell::{Cell, RefCell},
    sync::Once,
};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

static HOOK: Once = Once::new();

/// Runs `f`; panics on this thread are noted meanwhile.
pub(super) fn watch<T>(f: impl FnOnce() -> T) -> T {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            }
            before(info);
        }));
    });
    let before = WATCHED.replace(true);
    let result = f();
    WATCHED.set(before);
    result
}

/// The first panic since it was last asked, with what it said.
pub(super) fn take() -> Option<String> {
    let panics = PANICS.take();
    panics.into_iter().next()
}
