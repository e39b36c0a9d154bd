//! `DYNAMO`: the ring from inside. LOCAL asks this very node's store, ALL every key by its quorum.

use super::{
    Shared,
    args::{self, Failure},
    connection::{help, unknown_subcommand},
    dispatch::{Action, Call, Spec},
    execute::{self, Asking, Mark, Shape},
    frame::Frame,
    keys, server, wall_millis,
};
use bytes::Bytes;
use futures::StreamExt;
use simpledynamo_actors::messages::{
    AskStatus, AskTable, LocalGet, LocalPage, Member, Page, Standing, Status,
};
use simpledynamo_protocol::{
    command::Command,
    record::{Key, Record},
};
use std::rc::Rc;

/// Rows of the own store asked for at once: with the largest values, a page is 64 MiB.
const LOCAL_ROWS: u32 = 64;
/// Keys of the ring asked for at once.
const ALL_ROWS: u32 = 1_000;

pub(super) const COMMANDS: &[Spec] = &[Spec::plain("dynamo", -2, dynamo)
    .flags(&["readonly", "loading", "stale"])
    .about("server", "1.0.0", "Shows the ring and what this node stores.")];

fn dynamo(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, subcommand, rest @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let word = args::text(subcommand).to_ascii_lowercase();
    let shared = Rc::clone(call.shared);
    Ok(match (word.as_str(), rest) {
        ("local", []) => task(async move { local(&shared).await }),
        ("local", [key]) => {
            let key = call.key(key)?;
            task(async move { local_key(&shared, key).await })
        }
        ("all", []) => {
            let asking = call.asking();
            task(async move { all(&shared, &asking).await })
        }
        ("where", [key]) => {
            let nodes = shared.settings.ring.replicas_of(&call.key(key)?);
            let ids = nodes.into_iter().map(|id| Frame::Int(id.0.into()));
            Action::Reply(Frame::Array(ids.collect()))
        }
        ("ring", []) => task(async move { ring(&shared).await }),
        ("status", []) => task(async move { status(&shared).await }),
        ("flow", [switch]) => flow(call, switch)?,
        ("last", []) => {
            let mark = Rc::clone(&call.session.mark);
            // A task: it begins once all earlier commands have ended.
            task(async move { Ok(last(&mark)) })
        }
        ("help", []) => Action::Reply(help(
            "DYNAMO",
            &[
                "LOCAL: every live key and value stored on this very node",
                "LOCAL <key>: value, version and ballot stored on this very node, no quorum",
                "ALL: every key and value of the ring, each by a quorum read, not a snapshot",
                "WHERE <key>: the ids of the key's coordinator and of its successors",
                "RING: every node in ring order: id, peer address, position, share, standing",
                "STATUS: how this node is",
                "FLOW <ON|OFF>: write down every message of this connection's requests",
                "LAST: the id of this connection's last other request, for dynamo flow",
            ],
        )),
        ("local" | "all" | "where" | "ring" | "status" | "flow" | "last" | "help", _) => {
            return Err(args::wrong_arguments(&format!("dynamo|{word}")));
        }
        _ => return Err(unknown_subcommand(subcommand, "DYNAMO")),
    })
}

fn flow(call: &mut Call<'_>, switch: &Bytes) -> Result<Action, Failure> {
    let on = args::is(switch, "on");
    if !on && !args::is(switch, "off") {
        return Err(args::SYNTAX);
    }
    if on && !call.shared.node.flow.is_on() {
        return Err("ERR flow records are off at this node: write flow = \"sampled\" under \
                    [logging] in its cluster.toml and start it again"
            .into());
    }
    call.session.mark.keep.set(on);
    Ok(Action::Reply(Frame::Ok))
}

fn last(mark: &Mark) -> Frame {
    mark.last.get().map_or(Frame::Nil, |op| Frame::text(op.to_string()))
}

fn task(work: impl Future<Output = Result<Frame, Failure>> + 'static) -> Action {
    Action::Task(Box::pin(async move { work.await.unwrap_or_else(Frame::Error) }))
}

/// Pairs of one reply, as long as it may be.
struct Pairs {
    pairs: Vec<(Frame, Frame)>,
    bytes: usize,
    most: usize,
}

impl Pairs {
    fn new(shared: &Shared) -> Pairs {
        Pairs { pairs: Vec::new(), bytes: 0, most: shared.settings.limits.client_output_bytes }
    }

    fn push(&mut self, key: &Key, value: Frame, length: usize) -> Result<(), Failure> {
        self.bytes += key.len() + length;
        if self.bytes > self.most {
            let most = self.most;
            return Err(format!(
                "ERR the reply would be larger than {most} bytes: use SCAN and GET"
            )
            .into());
        }
        self.pairs.push((keys::bulk(key), value));
        Ok(())
    }
}

async fn local(shared: &Shared) -> Result<Frame, Failure> {
    let mut pairs = Pairs::new(shared);
    let mut from = Some(0);
    while let Some(at) = from {
        let page = LocalPage { from: at, rows: LOCAL_ROWS };
        let page = shared.node.local_page.send(page).await.map_err(|_| execute::STOPPING)?;
        let wall = wall_millis();
        for (key, Record { datum, .. }) in page.rows {
            if let Some(value) = datum.value().filter(|_| !datum.expired(wall)) {
                pairs.push(&key, Frame::Bulk(value.clone()), value.len())?;
            }
        }
        from = page.next;
    }
    Ok(Frame::Map(pairs.pairs))
}

/// As stored: a tombstone has no value, but a version and a ballot.
async fn local_key(shared: &Shared, key: Key) -> Result<Frame, Failure> {
    let record = shared.node.local_get.send(LocalGet { key }).await;
    let Some(Record { stamp, datum, .. }) = record.map_err(|_| execute::STOPPING)? else {
        return Ok(Frame::NilArray);
    };
    let value = datum.value().map_or(Frame::Nil, |value| Frame::Bulk(value.clone()));
    let ballot = Frame::text(stamp.ballot.to_string());
    Ok(Frame::Array(vec![value, Frame::count(stamp.version), ballot]))
}

async fn all(shared: &Shared, asking: &Asking) -> Result<Frame, Failure> {
    if shared.loading.get() {
        return Err("LOADING this node is starting; ask another".into());
    }
    let mut pairs = Pairs::new(shared);
    let mut from = Some(0);
    while let Some(at) = from {
        let Page { keys, next } = keys::page(&shared.node, at, ALL_ROWS).await?;
        let commands = keys.iter().map(|key| (key.clone(), Command::Get)).collect();
        let mut ends = std::pin::pin!(execute::each(asking, commands));
        for key in &keys {
            match execute::ended(ends.next().await.flatten(), Shape::Plain, true) {
                Frame::Bulk(value) => {
                    let length = value.len();
                    pairs.push(key, Frame::Bulk(value), length)?;
                }
                Frame::Error(text) => return Err(text),
                // Deleted between the page and the read.
                _ => {}
            }
        }
        from = next;
    }
    Ok(Frame::Map(pairs.pairs))
}

async fn ring(shared: &Shared) -> Result<Frame, Failure> {
    let table = shared.node.table.send(AskTable).await.map_err(|_| execute::STOPPING)?;
    Ok(Frame::Array(table.nodes.into_iter().map(row).collect()))
}

fn row(member: Member) -> Frame {
    let standing = match member.standing {
        Standing::Me => "me",
        Standing::Trusted => "trusted",
        Standing::Suspected => "suspected",
    };
    Frame::map([
        ("id", Frame::Int(member.id.0.into())),
        ("peer", Frame::text(member.peer.to_string())),
        ("position", Frame::text(member.position)),
        ("share", Frame::text(format!("{:.4}", member.share))),
        ("standing", Frame::text(standing)),
    ])
}

async fn status(shared: &Shared) -> Result<Frame, Failure> {
    let status = shared.node.status.send(AskStatus).await.map_err(|_| execute::STOPPING)?;
    let Status { phase, level, .. } = status;
    let figures = [
        ("incarnation", status.incarnation),
        ("rows", status.rows),
        ("live", status.live),
        ("copied", status.copied),
        ("in_flight", status.in_flight),
        ("coordinators", status.coordinators),
        ("operations", status.operations),
        ("refused", status.refused),
        ("unknown", status.unknown),
        ("retries", status.retries),
        ("hedges", status.hedges),
        ("dropped", status.dropped),
        ("commits", status.commits),
        ("committed", status.committed),
    ];
    let words = [
        ("node", Frame::Int(shared.settings.me.0.into())),
        ("phase", Frame::text(server::phase_word(phase))),
        ("level", Frame::text(if level { "yes" } else { "no" })),
        ("store", Frame::text(format!("{:016x}", status.store))),
    ];
    let figures = figures.into_iter().map(|(name, figure)| (name, Frame::count(figure)));
    let pairs = words.into_iter().chain(figures);
    Ok(Frame::Map(pairs.map(|(name, frame)| (Frame::text(name), frame)).collect()))
}
