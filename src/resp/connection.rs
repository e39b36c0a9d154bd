//! The connection itself: handshake, password, name; PING and ECHO.

use super::{
    REDIS_VERSION, Shared,
    args::{self, Failure},
    dispatch::{Action, Call, Spec},
    frame::{Frame, Protocol},
    session::{Replies, Session, password_matches},
};
use bytes::Bytes;

const OPEN: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth"];
const WRONG_PASSWORD: Failure =
    Failure::Borrowed("WRONGPASS invalid username-password pair or user is disabled.");
const NO_PASSWORD: Failure = Failure::Borrowed(
    "ERR AUTH <password> called without any password configured for the default user. \
     Are you sure your configuration is correct?",
);
/// Longest name a client may give itself, bytes.
const NAME_BYTES_MAX: usize = 1024;

pub(super) const COMMANDS: &[Spec] = &[
    Spec::plain("ping", -1, ping).about("connection", "1.0.0", "Answers PONG, or the message."),
    Spec::plain("echo", 2, echo).about("connection", "1.0.0", "Returns the message."),
    Spec::plain("hello", -1, hello).flags(OPEN).about(
        "connection",
        "6.0.0",
        "Chooses the protocol, and may authenticate and name the connection.",
    ),
    Spec::plain("auth", -2, auth).flags(OPEN).about(
        "connection",
        "1.0.0",
        "Authenticates the connection.",
    ),
    Spec::plain("select", 2, select).about(
        "connection",
        "1.0.0",
        "Chooses the database; there is only 0.",
    ),
    Spec::plain("quit", -1, |_| Ok(Action::Close(Frame::Ok))).flags(OPEN).about(
        "connection",
        "1.0.0",
        "Closes the connection.",
    ),
    Spec::plain("reset", 1, reset).flags(OPEN).about(
        "connection",
        "6.2.0",
        "Returns the connection to its first state.",
    ),
    Spec::plain("client", -2, client).about(
        "connection",
        "2.4.0",
        "Names, describes and lists connections.",
    ),
];

fn reply(frame: Frame) -> Result<Action, Failure> {
    Ok(Action::Reply(frame))
}

fn ping(call: &mut Call<'_>) -> Result<Action, Failure> {
    match call.args {
        [_] => reply(Frame::Status("PONG".into())),
        [_, message] => reply(Frame::Bulk((&message[..]).into())),
        _ => Err(call.wrong_arguments()),
    }
}

fn echo(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, message] = call.args else { return Err(call.wrong_arguments()) };
    reply(Frame::Bulk((&message[..]).into()))
}

fn auth(call: &mut Call<'_>) -> Result<Action, Failure> {
    match call.args {
        [_, _] if call.shared.settings.password.is_none() => Err(NO_PASSWORD),
        [_, password] => log_in(call, b"default", password),
        [_, user, password] => log_in(call, user, password),
        _ => Err(args::SYNTAX),
    }?;
    reply(Frame::Ok)
}

/// There is one user, `default`; without a password set every password is right, as in Redis.
fn log_in(call: &mut Call<'_>, user: &[u8], typed: &[u8]) -> Result<(), Failure> {
    let right = call.shared.settings.password.as_deref();
    let matches = right.is_none_or(|right| password_matches(right.as_bytes(), typed));
    if user != b"default" || !matches {
        let peer = call.session.peer;
        call.shared.lines.password.warn(|| format!("client {peer} gave a wrong password"));
        return Err(WRONG_PASSWORD);
    }
    call.session.authenticated = true;
    Ok(())
}

/// Nothing is changed unless everything asked for can be.
fn hello(call: &mut Call<'_>) -> Result<Action, Failure> {
    let (mut protocol, mut login, mut name) = (call.session.protocol, None, None);
    if let [_, version, options @ ..] = call.args {
        let number = args::integer(version);
        let number = number.ok_or("ERR Protocol version is not an integer or out of range")?;
        protocol = match number {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err("NOPROTO unsupported protocol version".into()),
        };
        let mut rest = options;
        while let [option, after @ ..] = rest {
            rest = match after {
                [user, password, after @ ..] if args::is(option, "AUTH") => {
                    login = Some((user, password));
                    after
                }
                [given, after @ ..] if args::is(option, "SETNAME") => {
                    name = Some(name_of(given)?);
                    after
                }
                _ => {
                    let option = args::text(option);
                    return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
                }
            };
        }
    }
    if let Some((user, password)) = login {
        log_in(call, user, password)?;
    }
    if !call.session.authenticated {
        return Err(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise \
                    the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the \
                    client and select the RESP protocol version at the same time"
                .into(),
        );
    }
    call.session.protocol = protocol;
    if let Some(name) = name {
        call.session.name = name;
    }
    publish(call.shared, call.session);
    reply(Frame::map([
        ("server", Frame::text("simpledynamo")),
        ("version", Frame::text(REDIS_VERSION)),
        ("proto", Frame::Int(protocol.number())),
        ("id", Frame::count(call.session.id)),
        ("mode", Frame::text("standalone")),
        ("role", Frame::text("master")),
        ("modules", Frame::Array(Vec::new())),
    ]))
}

/// Shows the connection as it now is to `CLIENT LIST` of others.
pub(super) fn publish(shared: &Shared, session: &Session) {
    shared.clients.borrow_mut().insert(session.id, session.clone());
}

fn select(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, index] = call.args else { return Err(call.wrong_arguments()) };
    match args::need_integer(index)? {
        0 => reply(Frame::Ok),
        _ => Err("ERR DB index is out of range".into()),
    }
}

fn reset(call: &mut Call<'_>) -> Result<Action, Failure> {
    call.session.reset(call.shared.settings.password.is_none());
    publish(call.shared, call.session);
    reply(Frame::Status("RESET".into()))
}

/// Printable and without blanks, so that a line of `CLIENT LIST` can be taken apart.
fn name_of(given: &[u8]) -> Result<Bytes, Failure> {
    printable(given).ok_or_else(|| {
        "ERR Client names cannot contain spaces, newlines or special characters.".into()
    })
}

fn printable(given: &[u8]) -> Option<Bytes> {
    let fits = given.len() <= NAME_BYTES_MAX && given.iter().all(u8::is_ascii_graphic);
    fits.then(|| Bytes::copy_from_slice(given))
}

fn client(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, subcommand, rest @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let word = args::text(subcommand).to_ascii_lowercase();
    match (word.as_str(), rest) {
        ("id", []) => reply(Frame::count(call.session.id)),
        ("getname", []) if call.session.name.is_empty() => reply(Frame::Nil),
        ("getname", []) => reply(Frame::Bulk((&call.session.name[..]).into())),
        ("setname", [name]) => {
            call.session.name = name_of(name)?;
            publish(call.shared, call.session);
            reply(Frame::Ok)
        }
        ("setinfo", [which, given]) => set_info(call, which, given),
        ("info", []) => reply(Frame::Verbatim(call.session.describe() + "\n")),
        ("list", []) => reply(Frame::Verbatim(list(call))),
        ("no-evict" | "no-touch", [switch]) => {
            if args::is(switch, "ON") || args::is(switch, "OFF") {
                reply(Frame::Ok)
            } else {
                Err(args::SYNTAX)
            }
        }
        ("reply", [switch]) => set_replies(call, switch),
        ("help", []) => reply(help(
            "CLIENT",
            &[
                "GETNAME | SETNAME <name> | ID | INFO | LIST",
                "REPLY (ON|OFF|SKIP)",
                "SETINFO (LIB-NAME|LIB-VER) <value>",
                "NO-EVICT (ON|OFF) | NO-TOUCH (ON|OFF), without effect",
            ],
        )),
        (
            "id" | "getname" | "setname" | "setinfo" | "info" | "list" | "no-evict" | "no-touch"
            | "reply" | "help",
            _,
        ) => Err(args::wrong_arguments(&format!("client|{word}"))),
        _ => Err(unknown_subcommand(subcommand, "CLIENT")),
    }
}

fn set_info(call: &mut Call<'_>, which: &Bytes, given: &[u8]) -> Result<Action, Failure> {
    let which_text = args::text(which);
    let Some(given) = printable(given) else {
        let text = "cannot contain spaces, newlines or special characters.";
        return Err(format!("ERR {which_text} {text}").into());
    };
    if args::is(which, "LIB-NAME") {
        call.session.lib_name = given;
    } else if args::is(which, "LIB-VER") {
        call.session.lib_version = given;
    } else {
        return Err(format!("ERR Unrecognized option '{which_text}'").into());
    }
    publish(call.shared, call.session);
    reply(Frame::Ok)
}

fn set_replies(call: &mut Call<'_>, switch: &Bytes) -> Result<Action, Failure> {
    call.session.replies = if args::is(switch, "ON") {
        Replies::On
    } else if args::is(switch, "OFF") {
        Replies::Off
    } else if args::is(switch, "SKIP") {
        Replies::SkipNext
    } else {
        return Err(args::SYNTAX);
    };
    reply(Frame::Ok)
}

fn list(call: &Call<'_>) -> String {
    let clients = call.shared.clients.borrow();
    clients.values().map(|session| session.describe() + "\n").collect()
}

/// The error for a subcommand that is not there.
pub(super) fn unknown_subcommand(typed: &[u8], command: &str) -> Failure {
    let typed = args::text(typed);
    format!("ERR unknown subcommand '{typed}'. Try {command} HELP.").into()
}

/// The usual answer to HELP.
pub(super) fn help(command: &str, lines: &[&'static str]) -> Frame {
    let head = format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let lines = lines.iter().map(|line| Frame::Status((*line).into()));
    Frame::Array(std::iter::once(Frame::Status(head.into())).chain(lines).collect())
}
