//! Keys: which are there, of what type, and without.

use super::{
    args::{self, Failure},
    dispatch::{Action, Call, Spec},
    execute::{self, Shape},
    frame::Frame,
    glob,
};
use bytes::Bytes;
use futures::StreamExt;
use simpledynamo_actors::messages::{CountKeys, NodeHandle, Page, ScanPage};
use simpledynamo_protocol::{command::Command, record::Key};

/// Keys asked for at once where all are wanted.
const PAGE_ROWS: u32 = 1_000;
/// Most keys a SCAN may ask for at once; its COUNT is a hint.
const SCAN_ROWS_MAX: u32 = 10_000;
/// Keys a SCAN looks at without COUNT, as in Redis.
const SCAN_ROWS: u32 = 10;
/// Longest pattern, bytes: matching costs its length times the key's.
const PATTERN_BYTES_MAX: usize = 4 * 1024;

const READ: &[&str] = &["readonly"];

pub(super) const COMMANDS: &[Spec] = &[
    Spec::write("del", -2, delete).keys(1, -1, 1).about(
        "generic",
        "1.0.0",
        "Deletes keys, each by itself.",
    ),
    Spec::write("unlink", -2, delete).keys(1, -1, 1).about(
        "generic",
        "4.0.0",
        "Deletes keys, each by itself; the same as DEL.",
    ),
    Spec::read("exists", -2, exists).keys(1, -1, 1).about(
        "generic",
        "1.0.0",
        "Counts the keys that exist.",
    ),
    Spec::read("touch", -2, exists).keys(1, -1, 1).about(
        "generic",
        "3.2.1",
        "Counts the keys that exist; the same as EXISTS.",
    ),
    Spec::read("type", 2, kind).about("generic", "1.0.0", "Returns the type of a key."),
    Spec::read("keys", 2, keys).keys(0, 0, 0).flags(READ).about(
        "generic",
        "1.0.0",
        "Returns the keys that match a pattern, not a snapshot.",
    ),
    Spec::read("scan", -2, scan).keys(0, 0, 0).flags(READ).about(
        "generic",
        "2.8.0",
        "Returns the keys step by step.",
    ),
    Spec::read("dbsize", 1, dbsize).keys(0, 0, 0).about(
        "server",
        "1.0.0",
        "Returns the number of keys.",
    ),
    Spec::read("randomkey", 1, randomkey).keys(0, 0, 0).flags(READ).about(
        "generic",
        "1.0.0",
        "Returns a key by chance.",
    ),
];

fn on_each(call: &Call<'_>, command: &Command) -> Result<Vec<(Key, Command)>, Failure> {
    call.args.iter().skip(1).map(|key| Ok((call.key(key)?, command.clone()))).collect()
}

fn delete(call: &mut Call<'_>) -> Result<Action, Failure> {
    if let [_, key] = call.args {
        return call.single(key, Command::Del);
    }
    let commands = on_each(call, &Command::Del)?;
    let asking = call.asking();
    Ok(Action::Task(Box::pin(async move {
        execute::write_each(asking, commands).await.map_or_else(Frame::Error, Frame::Int)
    })))
}

fn exists(call: &mut Call<'_>) -> Result<Action, Failure> {
    if let [_, key] = call.args {
        return call.single(key, Command::Exists);
    }
    let commands = on_each(call, &Command::Exists)?;
    let asking = call.asking();
    Ok(Action::Task(Box::pin(async move {
        let mut sum = 0;
        let mut ends = std::pin::pin!(execute::each(&asking, commands));
        while let Some(end) = ends.next().await {
            match execute::ended(end, Shape::Plain, true) {
                Frame::Int(found) => sum += found,
                other => return other,
            }
        }
        Frame::Int(sum)
    })))
}

fn kind(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::Type)
}

fn pattern(bytes: &Bytes) -> Result<Bytes, Failure> {
    if bytes.len() > PATTERN_BYTES_MAX {
        return Err(format!("ERR pattern longer than {PATTERN_BYTES_MAX} bytes").into());
    }
    // Not a slice, which would keep the whole input buffer alive.
    Ok(Bytes::copy_from_slice(bytes))
}

/// A page of the ring's keys.
pub(super) async fn page(node: &NodeHandle, from: u64, rows: u32) -> Result<Page, Failure> {
    match node.scan.send(ScanPage { from, rows }).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(reason)) => Err(execute::not_applied(None, reason)),
        Err(_) => Err(execute::STOPPING),
    }
}

fn keys(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, wanted] = call.args else { return Err(call.wrong_arguments()) };
    let wanted = pattern(wanted)?;
    let node = call.shared.node.clone();
    let most = call.shared.settings.limits.client_output_bytes;
    Ok(Action::Task(Box::pin(async move {
        all_keys(&node, &wanted, most).await.unwrap_or_else(Frame::Error)
    })))
}

async fn all_keys(node: &NodeHandle, wanted: &[u8], most: usize) -> Result<Frame, Failure> {
    let mut found = Vec::new();
    let (mut from, mut bytes) = (Some(0), 0);
    while let Some(at) = from {
        let page = page(node, at, PAGE_ROWS).await?;
        for key in page.keys.into_iter().filter(|key| glob::matches(wanted, key, false)) {
            bytes += key.len();
            if bytes > most {
                return Ok(execute::too_long(most, "use SCAN, or a narrower pattern"));
            }
            found.push(bulk(&key));
        }
        from = page.next;
    }
    Ok(Frame::Array(found))
}

/// A key as a reply.
pub(super) fn bulk(key: &Key) -> Frame {
    Frame::Bulk((&key[..]).into())
}

/// The cursor is the position prefix at which the next page starts; 0 begins and ends.
fn scan(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, cursor, options @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let from: u64 = std::str::from_utf8(cursor)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| text.parse().ok())
        .ok_or("ERR invalid cursor")?;
    let (mut wanted, mut rows, mut strings) = (None, SCAN_ROWS, true);
    let (pairs, odd) = options.as_chunks::<2>();
    for [option, given] in pairs {
        if args::is(option, "COUNT") {
            let count = args::need_integer(given)?;
            if count < 1 {
                return Err(args::SYNTAX);
            }
            rows = u32::try_from(count).map_or(SCAN_ROWS_MAX, |count| count.min(SCAN_ROWS_MAX));
        } else if args::is(option, "MATCH") {
            wanted = Some(pattern(given)?);
        } else if args::is(option, "TYPE") {
            strings = args::is(given, "string");
        } else {
            return Err(args::SYNTAX);
        }
    }
    if !odd.is_empty() {
        return Err(args::SYNTAX);
    }
    let node = call.shared.node.clone();
    Ok(Action::Task(Box::pin(async move {
        let Page { keys, next } = match page(&node, from, rows).await {
            Ok(page) => page,
            Err(text) => return Frame::Error(text),
        };
        let fits = |key: &&Key| {
            strings && wanted.as_ref().is_none_or(|wanted| glob::matches(wanted, key, false))
        };
        let found = keys.iter().filter(fits).map(bulk).collect();
        let cursor = Frame::text(next.unwrap_or(0).to_string());
        Frame::Array(vec![cursor, Frame::Array(found)])
    })))
}

fn dbsize(call: &mut Call<'_>) -> Result<Action, Failure> {
    let node = call.shared.node.clone();
    Ok(Action::Task(Box::pin(async move {
        match node.count.send(CountKeys).await {
            Ok(Ok(keys)) => Frame::count(keys),
            Ok(Err(reason)) => Frame::Error(execute::not_applied(None, reason)),
            Err(_) => Frame::Error(execute::STOPPING),
        }
    })))
}

/// The first key at or after a position by chance: keys after a wide gap come more often.
fn randomkey(call: &mut Call<'_>) -> Result<Action, Failure> {
    let node = call.shared.node.clone();
    let from = call.shared.roll();
    Ok(Action::Task(Box::pin(async move {
        let mut tries = [from, 0].into_iter();
        let mut at = tries.next();
        while let Some(from) = at {
            match page(&node, from, 1).await {
                Err(text) => return Frame::Error(text),
                Ok(Page { keys, next }) => {
                    if let Some(key) = keys.first() {
                        return bulk(key);
                    }
                    at = next.or_else(|| tries.next());
                }
            }
        }
        Frame::Nil
    })))
}
