//! The user and password in a `postgres://` URL (PostgreSQL manual, 34.1.1.2: both may be percent-encoded, or be
//! given as parameters). Connecting is not its business.

use crate::plan::DatabaseUrl;
use std::fmt;

#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    /// Its password: for setting it, never for showing. None where the server asks for none.
    pub password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

impl Login {
    /// Reads a URL; none where it names no user.
    pub fn of(url: &DatabaseUrl) -> Option<Login> {
        read(url.expose())
    }
}

fn read(url: &str) -> Option<Login> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let (mut user, mut password) = (None, None);
    if let Some((who, _)) = authority.rsplit_once('@') {
        let (name, secret) = who.split_once(':').map_or((who, None), |(name, secret)| (name, Some(secret)));
        user = Some(decoded(name));
        password = secret.map(decoded);
    }
    for (key, value) in parameters.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "user" => user = Some(decoded(value)),
            "password" => password = Some(decoded(value)),
            _ => {}
        }
    }
    let user = user.filter(|user| !user.is_empty())?;
    Some(Login { user, password: password.filter(|password| !password.is_empty()) })
}

/// Replaces `%41` by `A`. A `%` that begins no pair of hexadecimal digits stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| byte == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: Option<&str>) -> Option<Login> {
        Some(Login { user: user.to_owned(), password: password.map(str::to_owned) })
    }

    #[test]
    fn user_and_password_are_read_wherever_they_may_stand() {
        assert_eq!(read("postgres://s:p@h:5432/db"), login("s", Some("p")));
        assert_eq!(read("postgresql://s%40x:p%3Aq%2F@h/db?sslmode=require"), login("s@x", Some("p:q/")));
        assert_eq!(read("postgres://s@h/db"), login("s", None));
        assert_eq!(read("postgres:///db?host=/tmp&user=s&password=a%25"), login("s", Some("a%")));
        assert_eq!(read("postgres://h/db"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", read("postgres://s:geheim@h/db"));
        assert!(!shown.contains("geheim"), "{shown}");
    }
}
