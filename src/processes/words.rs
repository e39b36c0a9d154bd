//! Commands as clients send them, and answers as a history has them.

use crate::cli::client::Reply as Answer;
use simpledynamo_protocol::{
    command::{Command, Condition, Reply},
    history::Outcome,
    record::Key,
};
use std::io;

/// The command as clients send it. Those with expiry, ranges or floats are not spelled: histories
/// have none of them, and no scenario's [`simpledynamo_actors::harness::Mix`] draws them.
///
/// # Errors
/// The command is not one of those.
pub(crate) fn spell(key: &Key, command: &Command) -> io::Result<Vec<Vec<u8>>> {
    let mut words: Vec<Vec<u8>> = vec![command.name().into(), key.to_vec()];
    match command {
        Command::Get
        | Command::GetDel
        | Command::Del
        | Command::Exists
        | Command::StrLen
        | Command::Type => {}
        Command::IncrBy(by) => words.push(by.to_string().into()),
        Command::DelIfEq(value) | Command::Append(value) | Command::IncrByFloat(value) => {
            words.push(value.to_vec());
        }
        Command::Set { value, condition, get, .. } => {
            words.push(value.to_vec());
            match condition {
                Condition::Always => {}
                Condition::IfAbsent => words.push("NX".into()),
                Condition::IfPresent => words.push("XX".into()),
                Condition::IfEquals(old) => words.extend(["IFEQ".into(), old.to_vec()]),
            }
            if *get {
                words.push("GET".into());
            }
        }
        other => {
            let what = format!("{other} is not among the commands that can be sent to processes");
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
    }
    Ok(words)
}

/// What an answer says about the outcome, and the error's text where it is one.
pub(crate) fn understand(answer: io::Result<Answer>) -> (Outcome, Option<String>) {
    let reply = match answer {
        Ok(Answer::Simple(text)) if text == "OK" => Reply::Ok,
        Ok(Answer::Simple(text)) => Reply::Status(text),
        Ok(Answer::Integer(number)) => Reply::Int(number),
        Ok(Answer::Bulk(Some(bytes))) => Reply::Bulk(bytes.into()),
        Ok(Answer::Bulk(None)) => Reply::Nil,
        Ok(Answer::Error(text)) => {
            let code = text.split(' ').next().unwrap_or_default();
            let outcome = match code {
                "NOQUORUM" | "BUSY" | "LOADING" => Outcome::NotApplied,
                "UNKNOWN" => Outcome::Unknown,
                _ => Outcome::Reply(Reply::Error(text.clone())),
            };
            return (outcome, Some(without_id(&text)));
        }
        Ok(Answer::Array(_)) => return (Outcome::Unknown, Some("an array as answer".to_owned())),
        Err(error) => return (Outcome::Unknown, Some(format!("connection: {error}"))),
    };
    (Outcome::Reply(reply), None)
}

/// An error's text without the operation's id, so that equal errors count together.
fn without_id(text: &str) -> String {
    let is_id =
        |word: &&str| word.split('-').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    text.split(' ').filter(|word| !is_id(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_is_known() {
        let outcome = |text: &str| understand(Ok(Answer::Error(text.to_owned())));
        let (no, text) = outcome("NOQUORUM 5554-17-203 not applied: too few");
        assert_eq!(
            (no, text.as_deref()),
            (Outcome::NotApplied, Some("NOQUORUM not applied: too few"))
        );
        assert_eq!(outcome("UNKNOWN 5554-17-203 x").0, Outcome::Unknown);
        assert!(matches!(outcome("ERR x").0, Outcome::Reply(Reply::Error(_))));
        let lost = understand(Err(io::ErrorKind::UnexpectedEof.into()));
        assert_eq!(lost.0, Outcome::Unknown);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let spelled = spell(&Key::from("k"), &Command::DelIfEq("v".into())).unwrap();
        assert_eq!(spelled, [b"DELIFEQ".to_vec(), b"k".to_vec(), b"v".to_vec()]);
        assert!(spell(&Key::from("k"), &Command::Persist).is_err());
    }
}
