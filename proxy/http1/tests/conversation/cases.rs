//! The corpus, read from its files.

use super::To;

pub const REQUESTS: &str = include_str!("../corpus/requests.txt");
pub const ANSWERS: &str = include_str!("../corpus/answers.txt");

pub struct Case {
    pub line: usize,
    pub to: To,
    pub sent: Vec<u8>,
    pub said: Vec<u8>,
}

/// Reads the notation that `requests.txt` describes.
pub fn cases(text: &str) -> Vec<Case> {
    let (mut cases, mut frame, mut to) = (Vec::new(), "{}", To::Get);
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("# ") || line == "#" {
            continue;
        }
        if line.starts_with("== ") {
            (frame, to) = ("{}", To::Get);
        } else if let Some(text) = line.strip_prefix("frame: ") {
            frame = text;
        } else if let Some(request) = line.strip_prefix("to: ") {
            to = match request {
                "HEAD" => To::Head,
                "UPGRADE" => To::Upgrade,
                other => panic!("line {}: {other}", at + 1),
            };
        } else {
            let (sent, said) = line.split_once(" => ").unwrap_or_else(|| panic!("line {}: {line}", at + 1));
            let (sent, said) = (bytes(&frame.replacen("{}", sent.trim(), 1)), bytes(said.trim()));
            cases.push(Case { line: at + 1, to, sent, said });
        }
    }
    cases
}

fn bytes(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (sign, after) = rest[at + 1..].split_at(1);
        rest = after;
        match sign {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "s" => bytes.push(b' '),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
                rest = &after[2..];
            }
            "{" => {
                let (inside, after) = after.split_once('}').unwrap();
                let (count, repeated) = inside.split_once(':').unwrap();
                bytes.extend(self::bytes(repeated).repeat(count.parse().unwrap()));
                rest = after;
            }
            other => panic!("\\{other} in {text}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
