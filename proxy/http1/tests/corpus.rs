//! Every case of the corpus is what the corpus says, whole and cut at every byte, and the model reads it in the same way.

#![allow(clippy::unwrap_used)]

mod conversation;

use conversation::cases::{ANSWERS, Case, REQUESTS, cases};
use conversation::{Conversation, End, answers, model, requests};

/// Cases that are longer than [`CUT_EVERYWHERE`] are cut at so many places only.
const CUTS: usize = 40;
const CUT_EVERYWHERE: usize = 1000;
/// The model knows no bounds.
const MODELLED_MAX: usize = 1000;

fn is_as_said(seen: &Conversation, said: &[u8]) -> bool {
    let text = seen.text();
    if matches!(seen.end, End::Refused(_)) {
        text.starts_with(said) && said.contains(&b'!')
    } else {
        text == said
    }
}

fn wrong(cases: &[Case], read: impl Fn(&Case, &[&[u8]]) -> Conversation) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let sent = &case.sent[..];
        let every = if sent.len() <= CUT_EVERYWHERE { 1 } else { sent.len().div_ceil(CUTS) };
        let cuts = (1..sent.len()).filter(|at| at % every == 0).map(|at| vec![&sent[..at], &sent[at..]]);
        let bytewise = sent.chunks(1).collect();
        for pieces in [vec![sent], bytewise].into_iter().chain(cuts) {
            let seen = read(case, &pieces);
            if !is_as_said(&seen, &case.said) {
                let cut = if pieces.len() == 1 {
                    "whole".to_owned()
                } else {
                    format!("cut after {}", pieces[0].len())
                };
                let shown = |text: &[u8]| text[..text.len().min(300)].escape_ascii().to_string();
                wrong.push(format!(
                    "line {}, {cut}: {}\n    is {}\n  said {}",
                    case.line,
                    shown(sent),
                    shown(&seen.text()),
                    shown(&case.said)
                ));
                break;
            }
        }
    }
    wrong
}

fn modelled_wrong(cases: &[Case], read: impl Fn(&Case) -> Conversation) -> Vec<String> {
    let is_wrong = |case: &&Case| {
        let (seen, said) = (read(case).text(), &case.said[..]);
        let is_refused = (0..said.len())
            .find(|at| said[*at..].starts_with(b"! ") && (*at == 0 || said[..*at].ends_with(b" ; ")));
        // The model gives no reasons.
        let said = &said[..is_refused.map_or(said.len(), |at| at + 1)];
        seen.trim_ascii_end() != said && case.sent.len() <= MODELLED_MAX
    };
    let shown =
        |case: &Case| format!("line {}: the model reads {}", case.line, read(case).text().escape_ascii());
    cases.iter().filter(is_wrong).map(shown).collect()
}

#[test]
fn every_request_is_what_the_corpus_says() {
    let cases = cases(REQUESTS);
    assert!(cases.len() >= 250, "{} requests", cases.len());
    let wrong = wrong(&cases, |_, pieces| requests(pieces.iter().copied()));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let wrong = modelled_wrong(&cases, |case| model::requests(&case.sent));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_answer_is_what_the_corpus_says() {
    let cases = cases(ANSWERS);
    assert!(cases.len() >= 100, "{} answers", cases.len());
    let wrong = wrong(&cases, |case, pieces| answers(case.to, pieces.iter().copied()));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let wrong = modelled_wrong(&cases, |case| model::answers(case.to, &case.sent));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
