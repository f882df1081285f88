//! The parameters of a database's URL that are about TLS. The driver knows only a part of them.

use super::{Authorities, Mode, Tls};
use percent_encoding::percent_decode_str;
use std::path::PathBuf;

/// The parameters that are ours, with their values.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(&'static str, String)>);

const OURS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

fn ours(key: &str) -> Option<&'static str> {
    OURS.into_iter().find(|known| *known == key)
}

/// A URL, or a text `key=value key=value`, without the parameters that are ours; and these, decoded.
pub(crate) fn taken_from(text: &str) -> (String, Parameters) {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    if is_url { from_url(text) } else { from_words(text) }
}

fn from_url(url: &str) -> (String, Parameters) {
    // A password may hold a `?`, so the parameters begin behind what follows it.
    let place = url.find('@').map_or(0, |at| at + 1);
    let Some(mark) = url[place..].find('?').map(|at| place + at) else {
        return (url.to_owned(), Parameters::default());
    };
    let (mut kept, mut taken) = (Vec::new(), Vec::new());
    for pair in url[mark + 1..].split('&') {
        match pair.split_once('=').map(|(key, value)| (ours(key), value)) {
            Some((Some(key), value)) => {
                taken.push((key, percent_decode_str(value).decode_utf8_lossy().into_owned()));
            }
            _ => kept.push(pair),
        }
    }
    let kept = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    (format!("{}{kept}", &url[..mark]), Parameters(taken))
}

/// Values with blanks stand in single quotes; a backslash makes the next character plain (PostgreSQL manual, 34.1.1.1).
fn from_words(text: &str) -> (String, Parameters) {
    let (mut kept, mut taken, mut rest) = (String::new(), Vec::new(), text);
    while let Some((key, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (mut value, mut quoted, mut escaped, mut len) = (String::new(), false, false, 0);
        for (at, letter) in after.char_indices() {
            if !quoted && !escaped && letter.is_whitespace() {
                break;
            }
            len = at + letter.len_utf8();
            match letter {
                _ if escaped => {
                    value.push(letter);
                    escaped = false;
                }
                '\\' => escaped = true,
                '\'' => quoted = !quoted,
                _ => value.push(letter),
            }
        }
        match ours(key.trim()) {
            Some(key) => taken.push((key, value)),
            None => kept.push_str(&format!("{}={} ", key.trim(), &after[..len])),
        }
        rest = &after[len..];
    }
    if taken.is_empty() {
        return (text.to_owned(), Parameters::default());
    }
    kept.push_str(rest.trim());
    (kept.trim_end().to_owned(), Parameters(taken))
}

impl Parameters {
    /// The last one counts, and an empty one does not.
    fn last(&self, key: &str) -> Option<&str> {
        let given = self.0.iter().rfind(|(name, _)| *name == key).map(|(_, value)| value.as_str());
        given.filter(|value| !value.is_empty())
    }

    pub(crate) fn tls(&self) -> Result<Tls, &'static str> {
        let mode = self.last("sslmode").map(str::parse).transpose()?;
        let authorities = match self.last("sslrootcert") {
            Some("system") if mode.is_some_and(|mode| mode != Mode::VerifyFull) => {
                return Err(
                    "`sslrootcert=system` needs `sslmode=verify-full`: a public authority certifies everyone",
                );
            }
            Some("system") => Authorities::System,
            Some(file) => Authorities::File(PathBuf::from(file)),
            None => Authorities::Default,
        };
        let default = if authorities == Authorities::System { Mode::VerifyFull } else { Mode::Prefer };
        Ok(Tls {
            mode: mode.unwrap_or(default),
            authorities,
            certificate: self.last("sslcert").map(PathBuf::from),
            key: self.last("sslkey").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_read_from_the_parameters_only() {
        let of = |mode, authorities| Tls { mode, authorities, ..Tls::none() };
        let file = |path: &str| Authorities::File(PathBuf::from(path));
        for (text, rest, expected) in [
            ("postgres://us@db/shop", "postgres://us@db/shop", of(Mode::Prefer, Authorities::Default)),
            (
                "postgres://us@db/shop?sslmode=allow",
                "postgres://us@db/shop",
                of(Mode::Allow, Authorities::Default),
            ),
            (
                "postgres://us@db/shop?connect_timeout=3&sslmode=verify-ca",
                "postgres://us@db/shop?connect_timeout=3",
                of(Mode::VerifyCa, Authorities::Default),
            ),
            (
                "postgres://us@db/shop?sslmode=verify-full&sslrootcert=%2Fca%20x.pem",
                "postgres://us@db/shop",
                of(Mode::VerifyFull, file("/ca x.pem")),
            ),
            (
                "postgres://us@db/shop?sslrootcert=system",
                "postgres://us@db/shop",
                of(Mode::VerifyFull, Authorities::System),
            ),
            (
                "postgres://us@db/shop?sslmode=disable&sslmode=require",
                "postgres://us@db/shop",
                of(Mode::Require, Authorities::Default),
            ),
            (
                "postgres://us:a?sslmode=verify-full@db/shop",
                "postgres://us:a?sslmode=verify-full@db/shop",
                of(Mode::Prefer, Authorities::Default),
            ),
            (
                "postgres://us@db/shop?sslcert=us.crt&sslkey=us.key",
                "postgres://us@db/shop",
                Tls {
                    mode: Mode::Prefer,
                    certificate: Some("us.crt".into()),
                    key: Some("us.key".into()),
                    ..Tls::none()
                },
            ),
            ("host=db user=us sslmode=require", "host=db user=us", of(Mode::Require, Authorities::Default)),
            (
                r"host = db sslrootcert='/a\'s ca.pem' password='a b=c' sslmode=verify-ca user=us",
                "host=db password='a b=c' user=us",
                of(Mode::VerifyCa, file("/a's ca.pem")),
            ),
        ] {
            let (kept, parameters) = taken_from(text);
            assert_eq!((kept.as_str(), parameters.tls()), (rest, Ok(expected)), "{text}");
        }
        let (_, weak) = taken_from("postgres://us@db/shop?sslmode=require&sslrootcert=system");
        assert!(weak.tls().unwrap_err().contains("needs `sslmode=verify-full`"));
        assert!(taken_from("host=db sslmode=on").1.tls().is_err());
    }
}
