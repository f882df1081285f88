//! The crate reads changed messages as the model does, however they are cut.

#![allow(clippy::unwrap_used)]

mod conversation;

use conversation::cases::{ANSWERS, REQUESTS, cases};
use conversation::{Kind, check};
use proptest::prelude::*;

/// The model has no bounds, so messages stay below the crate's.
const BYTES_MAX: usize = 900;

/// Pieces of messages at which readers differ.
const PIECES: [&str; 40] = [
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    "\0",
    "\u{b}",
    "\u{c}",
    "\u{7f}",
    "\u{e9}",
    ":",
    ",",
    ";",
    "=",
    "\"",
    "0",
    "5",
    "ffffffffffffffff",
    "+",
    "_",
    "\r\n\r\n",
    "\r\n ",
    "\r\nHost: a",
    "\r\nHost: b:80",
    "\r\nContent-Length: 5",
    "\r\nContent-Length: 0",
    "\r\nTransfer-Encoding: chunked",
    "\r\nConnection: close",
    "\r\nConnection: keep-alive",
    "\r\nConnection: upgrade\r\nUpgrade: websocket",
    "\r\nMax-Forwards: 1",
    "HTTP/1.0",
    "HTTP/1.1",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "http://a",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "OPTIONS * ",
];

#[derive(Debug, Clone)]
enum Change {
    Put(usize, &'static str),
    Cut(usize, usize),
    Repeat(usize, usize),
    Byte(usize, u8),
    /// The end of another case follows.
    Splice(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), proptest::sample::select(PIECES.to_vec())).prop_map(|(at, piece)| Change::Put(at, piece)),
        2 => (any::<usize>(), 1usize..12).prop_map(|(at, len)| Change::Cut(at, len)),
        1 => (any::<usize>(), 1usize..40).prop_map(|(at, len)| Change::Repeat(at, len)),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(at, other)| Change::Splice(at, other)),
    ]
}

fn changed(mut bytes: Vec<u8>, others: &[(Kind, Vec<u8>)], changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let at = |at: usize| at % (bytes.len() + 1);
        match *change {
            Change::Put(place, piece) => {
                let place = at(place);
                bytes.splice(place..place, piece.bytes());
            }
            Change::Cut(place, len) => {
                let place = at(place);
                let end = bytes.len().min(place + len);
                bytes.drain(place..end);
            }
            Change::Repeat(place, len) => {
                let place = at(place);
                let piece = bytes[place..bytes.len().min(place + len)].to_vec();
                bytes.splice(place..place, piece);
            }
            Change::Byte(place, byte) => {
                let place = at(place);
                if let Some(old) = bytes.get_mut(place) {
                    *old = byte;
                }
            }
            Change::Splice(place, other) => {
                let other = &others[other % others.len()].1;
                bytes.truncate(at(place));
                bytes.extend_from_slice(&other[other.len().min(place % 64)..]);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn seeds() -> Vec<(Kind, Vec<u8>)> {
    let requests = cases(REQUESTS).into_iter().map(|case| (Kind::Requests, case.sent));
    let answers = cases(ANSWERS).into_iter().map(|case| (Kind::Answers(case.to), case.sent));
    requests.chain(answers).filter(|(_, sent)| sent.len() <= BYTES_MAX).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn changed_messages_are_read_as_the_model_reads_them(seed: usize, changes in proptest::collection::vec(change(), 1..5), cut: usize) {
        thread_local!(static SEEDS: Vec<(Kind, Vec<u8>)> = seeds());
        SEEDS.with(|seeds| {
            let (kind, bytes) = &seeds[seed % seeds.len()];
            let bytes = changed(bytes.clone(), seeds, &changes);
            check(*kind, &bytes, cut % (bytes.len() + 1));
        });
    }

    #[test]
    fn any_bytes_are_read_as_the_model_reads_them(bytes: Vec<u8>, kind in proptest::sample::select(Kind::ALL.to_vec()), cut: usize) {
        check(kind, &bytes, cut % (bytes.len() + 1));
    }
}
