//! Findings about columns that should not leave the monolith: those that look like secrets, and those that the plan keeps
//! out and the server sends all the same.

use super::run;
use super::sight::{DatabaseSeen, IdentitySeen, TableSeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::plan::Table;
use std::collections::BTreeSet;

/// Servers before this one have no lists of columns in publications.
const LISTS_SINCE: u32 = 150_000;

/// Words that name a secret, alone or beside other words of a column's name.
const WORDS: [&str; 20] = [
    "cvc",
    "cvv",
    "cvv2",
    "iban",
    "mfa",
    "otp",
    "pan",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "passwort",
    "pin",
    "pwd",
    "salt",
    "secret",
    "ssn",
    "token",
    "totp",
    "credential",
];

/// What names a secret however it is written: with dashes, in one word, in capitals.
const PARTS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "passwort",
    "secretkey",
    "apikey",
    "privatekey",
    "accesskey",
    "accesstoken",
    "cardnumber",
    "cardno",
    "creditcard",
    "socialsecurity",
];

/// Whether a column's name says that its values are secrets.
pub fn looks_secret(column: &str) -> bool {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in column.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    let joined = words.concat();
    PARTS.iter().any(|part| joined.contains(part))
        || words.iter().any(|word| {
            WORDS.contains(&word.strip_suffix('s').unwrap_or(word)) || WORDS.contains(&word.as_str())
        })
}

pub(super) fn judge(table: &Table, source: &DatabaseSeen, found: &mut Vec<Finding>) {
    let Some(seen) = source.tables.get(&table.from) else { return };
    let left_out = table.left_out();
    let columns = seen.columns.iter().map(|column| column.name.as_str());
    let columns: Vec<&str> = columns.filter(|name| seen.key.iter().all(|key| key != name)).collect();
    let (kept_out, carried): (Vec<&str>, Vec<&str>) =
        columns.into_iter().partition(|name| left_out.contains(*name));
    let carried: Vec<&str> = carried.into_iter().filter(|name| looks_secret(name)).collect();
    if !carried.is_empty() {
        found.push(secret(table, &carried));
    }
    if let Some(why) = sent_because(table, seen, source).filter(|_| !kept_out.is_empty()) {
        found.push(sent(table, &kept_out, why));
    }
    unlisted_identity(table, seen, source, found);
}

fn secret(table: &Table, columns: &[&str]) -> Finding {
    let all: BTreeSet<&str> = table.drop.iter().map(String::as_str).chain(columns.iter().copied()).collect();
    let all: Vec<&str> = all.into_iter().collect();
    let is_bare =
        table.to == table.from && table.rename.is_empty() && table.set.is_empty() && table.reverse.is_empty();
    let yaml = match is_bare {
        true => format!("- {{ from: {}, drop: [{}] }}", table.from, all.join(", ")),
        false => format!("drop: [{}]", all.join(", ")),
    };
    Finding::warning(
        Code::SourceSecretColumn,
        format!(
            "{} of {} looks like a secret, and the plan carries it to the service and into the log",
            columns.join(", "),
            table.from
        ),
        format!("if the service does not need it, write at table {} of the plan: `{yaml}`", table.from),
    )
}

/// Why the server sends every column, if it does.
fn sent_because(table: &Table, seen: &TableSeen, source: &DatabaseSeen) -> Option<&'static str> {
    let read = || table.set.values().flat_map(|set| &set.columns);
    if source.server.version < LISTS_SINCE {
        Some("a server before PostgreSQL 15 sends whole rows")
    } else if seen.identity == IdentitySeen::Full {
        Some("under REPLICA IDENTITY FULL the server sends whole rows")
    } else if read().any(|name| seen.column(name).is_some_and(|column| column.is_toastable)) {
        Some(
            "a `set` that reads large values needs REPLICA IDENTITY FULL, under which the server sends whole rows",
        )
    } else {
        None
    }
}

fn sent(table: &Table, columns: &[&str], why: &str) -> Finding {
    Finding::warning(
        Code::SourceColumnSent,
        format!(
            "{why}: the bridge gets {} of {}, and keeps it out of every log",
            columns.join(", "),
            table.from
        ),
        "nothing is needed, if the connection between the two is encrypted and the bridge's machine may see these values",
    )
}

/// An application's UPDATE is refused by the server if the publication's columns do not cover the replica identity.
fn unlisted_identity(table: &Table, seen: &TableSeen, source: &DatabaseSeen, found: &mut Vec<Finding>) {
    let published = source.installed.as_ref().and_then(|installed| installed.published.as_ref());
    let Some(Some(listed)) = published.and_then(|published| published.get(&table.from)) else { return };
    let is_covered =
        seen.identity != IdentitySeen::Full && seen.key.iter().all(|column| listed.contains(column));
    if is_covered {
        return;
    }
    let statement = format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT;", table.from.quoted());
    found.push(Finding::error(
        Code::SourceListedIdentity,
        format!(
            "the columns of {} that are published do not cover its replica identity: the application's UPDATE and DELETE fail",
            table.from
        ),
        match seen.identity {
            IdentitySeen::Full => run(&source.database, &statement),
            _ => "run `strangler sync drop` for its slice, then `strangler install` again".to_owned(),
        },
    ));
}

#[cfg(test)]
mod tests {
    use super::looks_secret;

    #[test]
    fn a_name_that_says_secret_is_found_however_it_is_written() {
        for secret in [
            "password",
            "password_hash",
            "PasswordHash",
            "hashedPassword",
            "user_pwd",
            "passwd",
            "PWD",
            "api_token",
            "tokens",
            "resetToken",
            "client_secret",
            "ssn",
            "SSN",
            "cardNumber",
            "card_number",
            "credit_card",
            "cvv",
            "pin",
            "apiKey",
            "private_key",
            "otp_secret",
            "salt",
            "encrypted_password",
            "credentials",
            "social_security_number",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
        for plain in [
            "id",
            "name",
            "email",
            "note",
            "tokenized",
            "secretary",
            "spin",
            "pinned",
            "passenger",
            "compass",
            "company",
            "total",
            "card_id",
            "pane",
            "option",
            "salted_fish_count",
            "",
        ] {
            assert!(!looks_secret(plain), "{plain}");
        }
    }
}
