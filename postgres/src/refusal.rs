//! What a server's error means, by its SQLSTATE. The server's words may be in any language, so they are only shown.

use tokio_postgres::error::{DbError, SqlState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoRight,
    NotInstalled,
    /// A table, a column or a type is not as the statement expects.
    OtherShape,
    /// The statement or its rows do not fit: values, constraints, triggers, limits.
    Rows,
    /// Someone else stands in the way, or the server is in trouble with this statement. It may work at another try, but
    /// not for sure.
    Contended,
    /// The server or the connection is not there, or the server takes nothing. It is no statement's fault.
    Away,
}

impl Refusal {
    /// Reads the error's SQLSTATE (PostgreSQL manual, appendix A). The driver's own errors have none: the connection
    /// is broken.
    pub fn of(error: &tokio_postgres::Error) -> Refusal {
        let Some(error) = error.as_db_error() else { return Refusal::Away };
        match Refusal::by_code(error.code(), error.message()) {
            // A trigger or a check of the tables' own lacks a right, or does not find what it names.
            Refusal::NoRight | Refusal::NotInstalled | Refusal::OtherShape
                if function_of(error).is_some() =>
            {
                Refusal::Rows
            }
            refusal => refusal,
        }
    }

    /// Whether the same may work later without anyone doing anything.
    pub fn may_pass(self) -> bool {
        matches!(self, Refusal::Contended | Refusal::Away)
    }

    /// The message only says which object is missing: every language names our schema alike.
    fn by_code(code: &SqlState, message: &str) -> Refusal {
        match code.code() {
            "42501" => Refusal::NoRight,
            // A gate whose tables are busy (`sql/0005_gate.sql`): it waits for writers, however long they take.
            "STR05" => Refusal::Away,
            // A full disk, no free connection, a server that only reads, one that shuts down or starts, a session that
            // was ended.
            "53100" | "53300" | "25006" | "25P03" | "25P04" | "57P01" | "57P02" | "57P03" | "57P04"
            | "57P05" => Refusal::Away,
            // A table in use, and a lock that was not had in time. The rest of 55 is about the statement.
            "55006" | "55P03" => Refusal::Contended,
            "3F000" if message.contains("strangler") => Refusal::NotInstalled,
            "42P01" | "42883" if message.contains("strangler.") => Refusal::NotInstalled,
            "3F000" => Refusal::OtherShape,
            code => match code.get(..2).unwrap_or_default() {
                "42" => Refusal::OtherShape,
                "08" | "28" | "3D" => Refusal::Away,
                "25" | "26" | "40" | "53" | "57" | "58" | "XX" => Refusal::Contended,
                _ => Refusal::Rows,
            },
        }
    }
}

/// Where a function of others failed, in the server's words: a trigger's, a check's. None for a statement of ours, and for
/// our own functions. These lines have other words in other languages, but they name the function's language.
pub fn function_of(error: &DbError) -> Option<&str> {
    let is_code = |line: &&str| line.contains("PL/") || line.contains("SQL");
    let is_place = |line: &&str| !line.starts_with("COPY ");
    let mut lines = error.where_()?.lines().filter(is_place).filter(is_code);
    let last = lines.next_back()?;
    let is_ours = |line: &str| line.contains("strangler.");
    (!is_ours(last) && !lines.any(is_ours)).then_some(last)
}

/// The server's message, detail and SQLSTATE; the driver's own words and their causes where no server spoke. The
/// statement is never part of it: it may hold a password.
pub fn in_words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => said(server),
        None => {
            let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        }
    }
}

fn said(server: &DbError) -> String {
    words(server.message(), server.detail(), server.code().code())
}

pub(crate) fn words(message: &str, detail: Option<&str>, code: &str) -> String {
    let detail = detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{message}{detail} [{code}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_its_code() {
        let of = |code: &str, message: &str| Refusal::by_code(&SqlState::from_code(code), message);
        assert_eq!(of("42501", "keine Berechtigung für Tabelle strangler.gate"), Refusal::NoRight);
        assert_eq!(of("42P01", "Relation »strangler.stream« existiert nicht"), Refusal::NotInstalled);
        assert_eq!(of("3F000", "schema \"strangler\" does not exist"), Refusal::NotInstalled);
        assert_eq!(
            of("42883", "function strangler.fence(text, bigint) does not exist"),
            Refusal::NotInstalled
        );
        assert_eq!(of("42P01", "relation \"public.orders\" does not exist"), Refusal::OtherShape);
        assert_eq!(of("42703", "column \"strangler\" does not exist"), Refusal::OtherShape);
        assert!(of("40001", "").may_pass() && of("57P01", "").may_pass() && !of("23505", "").may_pass());
    }

    /// Every class of appendix A, and the codes that differ from their class.
    #[test]
    fn every_class_of_codes_has_its_refusal() {
        use Refusal::{Away, Contended, NoRight, OtherShape, Rows};
        let classes = [
            (
                Rows,
                "01000 02000 03000 09000 0A000 0B000 0F000 0L000 0P000 0Z000 20000 21000 22000 22P02 23000 23505",
            ),
            (
                Rows,
                "24000 27000 2B000 2D000 2F000 34000 38000 39000 3B000 44000 54000 55000 55P02 55P04 72000 F0000",
            ),
            (Rows, "HV000 P0000 P0001 P0004 MY001 STR01"),
            (OtherShape, "3F000 42000 42601 42703 42P01"),
            (NoRight, "42501"),
            (
                Contended,
                "25000 25001 25P02 26000 40000 40001 40002 40003 40P01 53000 53200 53400 55006 55P03",
            ),
            (Contended, "57000 57014 58000 58030 XX000 XX001 XX002"),
            (
                Away,
                "08000 08006 28000 28P01 3D000 25006 25P03 25P04 53100 53300 57P01 57P02 57P03 57P04 57P05 STR05",
            ),
        ];
        for (refusal, codes) in classes {
            for code in codes.split(' ') {
                assert_eq!(Refusal::by_code(&SqlState::from_code(code), ""), refusal, "{code}");
            }
        }
    }
}
