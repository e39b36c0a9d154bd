//! What no record tells because another implies it, put where it happened.
//!
//! Of a message that at once leads to a record with it as its cause the receipt is not taken down, unless
//! everything is (`simpledynamo_actors::flow::Recorder::receipt`), and of a read that a router has made
//! itself the reply says on what replicas agreed. Who reads a story wants them all the same.

use super::line::Line;
use simpledynamo_actors::flow::{Event, RecordId};
use std::collections::{BTreeMap, BTreeSet};

/// The lines with the receipts and quorums that they imply, each before the first line that it led to.
pub(super) fn with(lines: Vec<Line>) -> Vec<Line> {
    let told = |line: &Line| matches!(line.event, Event::Receive | Event::Drop);
    let ended: BTreeSet<RecordId> =
        lines.iter().filter(|line| told(line)).filter_map(|line| line.message).collect();
    let mut open: BTreeMap<RecordId, Line> = BTreeMap::new();
    let mut whole = Vec::with_capacity(lines.len());
    for line in lines {
        let here = |sent: &Line| sent.to.is_some_and(|to| to.node == line.node);
        let cause = line.cause.filter(|cause| open.get(cause).is_some_and(here));
        let sent = cause.and_then(|cause| open.remove(&cause));
        whole.extend(sent.map(|sent| receipt(sent, &line)));
        whole.extend(quorum(&line));
        let sending = line.event == Event::Send && !line.is_local();
        if let Some(message) = line.message.filter(|id| sending && !ended.contains(id)) {
            open.insert(message, line.clone());
        }
        whole.push(line);
    }
    whole
}

/// The receipt of what was `sent`, as the first line that it led to says it.
fn receipt(sent: Line, led_to: &Line) -> Line {
    // What is sent says how long its cause waited and was worked on.
    let ago = if led_to.event == Event::Send { led_to.queue + led_to.handling } else { 0 };
    Line {
        wall: led_to.wall.saturating_sub(ago),
        mono: led_to.mono.saturating_sub(ago),
        node: led_to.node,
        incarnation: led_to.incarnation,
        seq: led_to.seq,
        event: Event::Receive,
        queue: 0,
        handling: 0,
        inferred: true,
        ..sent
    }
}

/// On what replicas agreed, where the reply alone says it.
fn quorum(line: &Line) -> Option<Line> {
    let told = line.event == Event::Reply && !line.kind.is_empty();
    told.then(|| Line {
        event: Event::Quorum,
        to: None,
        key: String::new(),
        reason: String::new(),
        handling: 0,
        inferred: true,
        ..line.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// 5554 asks 5556, whose answer says how long it took.
    fn question_and_answer() -> [Line; 2] {
        let question = r#"{"v":1,"wall":100,"mono":100,"node":5554,"incarnation":1,"seq":7,
            "event":"send","message":"5554.1.7","from":"5554/router","to":"5556/replica","type":"Query",
            "key":"k","bytes":60}"#;
        let answer = r#"{"v":1,"wall":190,"mono":90,"node":5556,"incarnation":2,"seq":9,"event":"send",
            "message":"5556.2.9","cause":"5554.1.7","from":"5556/replica","to":"5554/router",
            "type":"State","key":"k","version":3,"queue":10,"handling":20}"#;
        [line(question), line(answer)]
    }

    #[test]
    fn an_answer_says_when_the_question_came_in() {
        let whole = with(question_and_answer().to_vec());
        let [question, received, answer] = whole.as_slice() else { panic!("{whole:?}") };
        assert_eq!((received.event, received.message), (Event::Receive, question.message));
        assert_eq!((received.wall, received.mono, received.node), (160, 60, 5556));
        assert_eq!(
            (received.kind.as_str(), received.bytes, received.inferred),
            ("Query", 60, true)
        );
        assert!(!answer.inferred && !question.inferred);
    }

    #[test]
    fn a_receipt_that_was_taken_down_is_not_put_in_again() {
        let [question, answer] = question_and_answer();
        let mut received = receipt(question.clone(), &answer);
        received.inferred = false;
        let told = vec![question.clone(), received, answer.clone()];
        assert_eq!(with(told.clone()), told);
    }

    #[test]
    fn a_reply_says_on_what_replicas_agreed() {
        let reply = r#"{"v":1,"wall":9,"mono":9,"node":5554,"incarnation":1,"seq":3,"event":"reply",
            "cause":"5556.2.9","request":"5554-1-2","from":"5554/router","to":"5554/client","type":"Query",
            "key":"k","ballot":"1.5558","version":3,"handling":7,"reason":"done"}"#;
        let whole = with(vec![line(reply)]);
        let [quorum, reply] = whole.as_slice() else { panic!("{whole:?}") };
        assert_eq!((quorum.event, quorum.stamp().as_str()), (Event::Quorum, "v3@1.5558"));
        assert_eq!((quorum.wall, quorum.handling, quorum.request), (9, 0, reply.request));
        assert_eq!((reply.event, reply.inferred), (Event::Reply, false));
    }

    #[test]
    fn what_another_node_does_is_no_receipt() {
        let [question, mut answer] = question_and_answer();
        answer.node = 5558;
        let told = vec![question, answer];
        assert_eq!(with(told.clone()), told);
    }
}
