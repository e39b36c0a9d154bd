//! The table of commands, and the way from arguments to an action.
//!
//! Each family lists its own commands; name, arity, rights and key positions stand there once and
//! serve the checks here, `COMMAND` and its help alike.

use super::{
    Shared,
    args::{self, Failure},
    connection, count, dynamo,
    execute::{Asking, Shape},
    expiry,
    frame::Frame,
    introspect, keys, server,
    session::Session,
    strings,
};
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use simpledynamo_protocol::{
    command::Command,
    record::{Key, Value},
};
use std::{rc::Rc, sync::LazyLock};

/// What a command leads to.
pub(super) enum Action {
    /// An answer at once.
    Reply(Frame),
    /// An answer at once, the connection's last.
    Close(Frame),
    /// The connection is closed without an answer.
    Hang,
    /// One key's command.
    Single { key: Key, command: Command, shape: Shape },
    /// Work of its own, begun once all earlier commands of the connection have ended.
    Task(LocalBoxFuture<'static, Frame>),
}

/// A family's function for one command.
pub(super) type Run = fn(&mut Call<'_>) -> Result<Action, Failure>;

/// One command of the table. Arity, flags and key positions mean what they mean in `COMMAND INFO`.
pub(super) struct Spec {
    /// In lower case.
    pub(super) name: &'static str,
    /// Arguments, the name included; negative: at least so many.
    pub(super) arity: i64,
    pub(super) flags: &'static [&'static str],
    /// First key, last key (negative: from the end), step; zeros for none.
    pub(super) keys: (i64, i64, i64),
    pub(super) group: &'static str,
    pub(super) since: &'static str,
    pub(super) summary: &'static str,
    pub(super) run: Run,
}

impl Spec {
    /// A command that reads its first argument's key.
    pub(super) const fn read(name: &'static str, arity: i64, run: Run) -> Spec {
        let flags = &["readonly", "fast"];
        Spec { name, arity, flags, keys: (1, 1, 1), group: "string", since: "", summary: "", run }
    }

    /// A command that writes its first argument's key.
    pub(super) const fn write(name: &'static str, arity: i64, run: Run) -> Spec {
        Spec { flags: &["write", "fast"], ..Spec::read(name, arity, run) }
    }

    /// A command without keys, allowed while the node is starting.
    pub(super) const fn plain(name: &'static str, arity: i64, run: Run) -> Spec {
        let flags = &["loading", "stale", "fast"];
        Spec { flags, keys: (0, 0, 0), ..Spec::read(name, arity, run) }
    }

    /// Where its keys are.
    pub(super) const fn keys(self, first: i64, last: i64, step: i64) -> Spec {
        Spec { keys: (first, last, step), ..self }
    }

    /// Its flags.
    pub(super) const fn flags(self, flags: &'static [&'static str]) -> Spec {
        Spec { flags, ..self }
    }

    /// Its group, the version it came with and what it does.
    pub(super) const fn about(
        self,
        group: &'static str,
        since: &'static str,
        summary: &'static str,
    ) -> Spec {
        Spec { group, since, summary, ..self }
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    /// Whether it takes so many arguments, the name included.
    pub(super) fn takes(&self, arguments: usize) -> bool {
        let arguments = i64::try_from(arguments).unwrap_or(i64::MAX);
        if self.arity < 0 { arguments >= -self.arity } else { arguments == self.arity }
    }
}

/// All commands, sorted by name.
pub(super) static TABLE: LazyLock<Vec<&'static Spec>> = LazyLock::new(|| {
    let families = [
        strings::COMMANDS,
        expiry::COMMANDS,
        keys::COMMANDS,
        connection::COMMANDS,
        introspect::COMMANDS,
        server::COMMANDS,
        dynamo::COMMANDS,
    ];
    let mut table: Vec<_> = families.into_iter().flatten().collect();
    table.sort_by_key(|spec| spec.name);
    table
});

/// The command of this name, in upper or lower case.
pub(super) fn find(name: &[u8]) -> Option<&'static Spec> {
    let folded = name.iter().map(u8::to_ascii_lowercase);
    let at = TABLE.binary_search_by(|spec| spec.name.bytes().cmp(folded.clone())).ok()?;
    TABLE.get(at).copied()
}

/// One command as a family's function sees it.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Rc<Shared>,
    pub(super) session: &'a mut Session,
    pub(super) spec: &'static Spec,
    /// The name first.
    pub(super) args: &'a [Bytes],
}

impl Call<'_> {
    /// The error for arguments that do not pair up.
    pub(super) fn wrong_arguments(&self) -> Failure {
        args::wrong_arguments(self.spec.name)
    }

    /// A key, if it can be one.
    pub(super) fn key(&self, bytes: &[u8]) -> Result<Key, Failure> {
        let most = self.shared.settings.limits.key_bytes;
        match bytes.len() {
            0 => Err(format!("ERR key is empty: a key has 1 to {most} bytes").into()),
            long if long > most => {
                Err(format!("ERR key of {long} bytes: a key has 1 to {most} bytes").into())
            }
            _ => Ok(bytes.into()),
        }
    }

    /// The way to the node.
    pub(super) fn asking(&self) -> Asking {
        Asking { node: self.shared.node.clone(), mark: Rc::clone(&self.session.mark) }
    }

    /// A value, if it can be one.
    pub(super) fn value(&self, bytes: &[u8]) -> Result<Value, Failure> {
        let most = self.shared.settings.limits.value_bytes;
        if bytes.len() > most {
            return Err(
                format!("ERR value of {} bytes: the largest is {most} bytes", bytes.len()).into()
            );
        }
        Ok(bytes.into())
    }

    /// The action for one command on the key `bytes`.
    pub(super) fn single(&self, bytes: &[u8], command: Command) -> Result<Action, Failure> {
        // Two values, as SET … IFEQ has, may each be allowed and together fit no message.
        const ENVELOPE_BYTES: usize = 1_024;
        let frame = self.shared.settings.limits.frame_bytes;
        let together = bytes.len() + command.size() + ENVELOPE_BYTES;
        if together > frame {
            let text = format!(
                "ERR key and values of {together} bytes: together at most {frame} (limits.frame_bytes)"
            );
            return Err(text.into());
        }
        Ok(Action::Single { key: self.key(bytes)?, command, shape: Shape::Plain })
    }
}

/// From a command's arguments to what is to be done.
pub(super) fn dispatch(shared: &Rc<Shared>, session: &mut Session, args: &[Bytes]) -> Action {
    count(&shared.commands);
    shared.node.metrics.client_commands.increment();
    let Some(name) = args.first() else { return Action::Reply(Frame::error(args::SYNTAX)) };
    // A web page can make a browser send these; what follows would be taken for commands.
    if args::is(name, "post") || args::is(name, "host:") {
        let line = || format!("client {} speaks HTTP to the client port; closed", session.peer);
        shared.lines.http.warn(line);
        return Action::Hang;
    }
    let Some(spec) = find(name) else { return Action::Reply(Frame::Error(unknown(name, args))) };
    if !spec.takes(args.len()) {
        return Action::Reply(Frame::Error(args::wrong_arguments(spec.name)));
    }
    if !session.authenticated && !spec.has("no_auth") {
        return Action::Reply(Frame::error("NOAUTH Authentication required."));
    }
    if shared.loading.get() && !spec.has("loading") {
        return Action::Reply(Frame::error(
            "LOADING this node is starting and asks its peers who it was; try again or ask another",
        ));
    }
    let mut call = Call { shared, session, spec, args };
    (spec.run)(&mut call).unwrap_or_else(|failure| Action::Reply(Frame::Error(failure)))
}

/// The usual text: the name and the first arguments, cut.
fn unknown(name: &[u8], args: &[Bytes]) -> Failure {
    const SHOWN: usize = 128;
    let cut = |bytes: &[u8], most: usize| args::text(bytes.get(..most).unwrap_or(bytes));
    let mut shown = String::new();
    for arg in args.iter().skip(1) {
        if shown.len() >= SHOWN {
            break;
        }
        shown.push_str(&format!("'{}' ", cut(arg, SHOWN - shown.len())));
    }
    format!("ERR unknown command '{}', with args beginning with: {shown}", cut(name, SHOWN)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_there_once_and_can_be_found() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].name < pair[1].name, "{}", pair[0].name);
        }
        for spec in TABLE.iter() {
            assert!(std::ptr::eq(find(spec.name.to_uppercase().as_bytes()).unwrap(), *spec));
            assert!(!spec.summary.is_empty() && !spec.since.is_empty(), "{}", spec.name);
        }
        assert!(find(b"nosuch").is_none());
    }
}
