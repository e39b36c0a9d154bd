//! `COMMAND`: the table of commands as clients ask for it.

use super::{
    args::{self, Failure},
    connection::{help, unknown_subcommand},
    dispatch::{self, Action, Call, Spec, TABLE},
    frame::Frame,
    glob,
};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] =
    &[Spec::plain("command", -1, command).about("server", "2.8.13", "Describes the commands.")];

fn command(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, subcommand, rest @ ..] = call.args else {
        return Ok(Action::Reply(Frame::Array(TABLE.iter().map(|spec| info(spec)).collect())));
    };
    let word = args::text(subcommand).to_ascii_lowercase();
    let frame = match (word.as_str(), rest) {
        ("count", []) => Frame::count(TABLE.len() as u64),
        ("info", names) => {
            Frame::Array(chosen(names).map(|found| found.map_or(Frame::Nil, info)).collect())
        }
        ("docs", names) => Frame::Map(chosen(names).flatten().map(docs).collect()),
        ("list", []) => list(|_| true),
        ("list", [by, kind, wanted]) if args::is(by, "FILTERBY") => {
            if args::is(kind, "PATTERN") {
                list(|spec| glob::matches(wanted, spec.name.as_bytes(), true))
            } else if args::is(kind, "ACLCAT") {
                list(|spec| categories(spec).iter().any(|category| args::is(wanted, category)))
            } else if args::is(kind, "MODULE") {
                Frame::Array(Vec::new())
            } else {
                return Err(args::SYNTAX);
            }
        }
        ("list", _) => return Err(args::SYNTAX),
        ("getkeys", [_, _, ..]) => getkeys(rest)?,
        ("help", []) => help(
            "COMMAND",
            &[
                "(no subcommand) | COUNT | INFO [<name> ...] | DOCS [<name> ...]",
                "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
                "GETKEYS <command> [<arg> ...]",
            ],
        ),
        ("count" | "getkeys" | "help", _) => {
            return Err(args::wrong_arguments(&format!("command|{word}")));
        }
        _ => return Err(unknown_subcommand(subcommand, "COMMAND")),
    };
    Ok(Action::Reply(frame))
}

/// The commands named, or all.
fn chosen(names: &[Bytes]) -> Box<dyn Iterator<Item = Option<&'static Spec>> + '_> {
    if names.is_empty() {
        return Box::new(TABLE.iter().copied().map(Some));
    }
    Box::new(names.iter().map(|name| dispatch::find(name)))
}

fn list(fits: impl Fn(&Spec) -> bool) -> Frame {
    let names = TABLE.iter().filter(|spec| fits(spec)).map(|spec| Frame::text(spec.name));
    Frame::Array(names.collect())
}

/// Categories, without the leading `@`.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let speed = if spec.flags.contains(&"fast") { "fast" } else { "slow" };
    let rights = [("readonly", "read"), ("write", "write")];
    let rights = rights.into_iter().filter(|(flag, _)| spec.flags.contains(flag));
    let group = match spec.group {
        "generic" => Some("keyspace"),
        "string" => Some("string"),
        "connection" => Some("connection"),
        _ => None,
    };
    rights.map(|(_, category)| category).chain(group).chain([speed]).collect()
}

/// Name, arity, flags, first key, last key, step, categories, tips, key specifications, subcommands.
fn info(spec: &Spec) -> Frame {
    let (first, last, step) = spec.keys;
    let status = |text: &&'static str| Frame::Status((*text).into());
    let category = |name: &&'static str| Frame::Status(format!("@{name}").into());
    Frame::Array(vec![
        Frame::text(spec.name),
        Frame::Int(spec.arity),
        Frame::Set(spec.flags.iter().map(status).collect()),
        Frame::Int(first),
        Frame::Int(last),
        Frame::Int(step),
        Frame::Set(categories(spec).iter().map(category).collect()),
        Frame::Array(Vec::new()),
        Frame::Array(Vec::new()),
        Frame::Array(Vec::new()),
    ])
}

fn docs(spec: &'static Spec) -> (Frame, Frame) {
    let entries = Frame::map([
        ("summary", Frame::text(spec.summary)),
        ("since", Frame::text(spec.since)),
        ("group", Frame::text(spec.group)),
    ]);
    (Frame::text(spec.name), entries)
}

fn getkeys(typed: &[Bytes]) -> Result<Frame, Failure> {
    let spec = typed.first().and_then(|name| dispatch::find(name));
    let spec = spec.ok_or("ERR Invalid command specified")?;
    let (first, last, step) = spec.keys;
    if first == 0 {
        return Err("ERR The command has no key arguments".into());
    }
    if !spec.takes(typed.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let place = |at: i64| usize::try_from(at).unwrap_or(0);
    let end = if last < 0 { typed.len() } else { place(last) + 1 };
    let range = typed.get(place(first)..end).unwrap_or_default();
    let keys = range.iter().step_by(place(step).max(1));
    Ok(Frame::Array(keys.map(|key| Frame::Bulk((&key[..]).into())).collect()))
}
