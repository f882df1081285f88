//! What a server's error means, by its SQLSTATE. The server's words may be in any language, so they are only shown.

use tokio_postgres::error::{DbError, SqlState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoRight,
    NotInstalled,
    /// A table, a column or a type is not as the statement expects.
    OtherShape,
    /// The rows do not fit: their values, constraints or triggers.
    Rows,
    /// The server or the connection is in trouble. The same question may work later.
    Away,
}

impl Refusal {
    /// Reads the error's SQLSTATE (PostgreSQL manual, appendix A). The driver's own errors have none: the connection
    /// is broken.
    pub fn of(error: &tokio_postgres::Error) -> Refusal {
        error.as_db_error().map_or(Refusal::Away, |error| Refusal::by_code(error.code(), error.message()))
    }

    /// The message only says which object is missing: every language names our schema alike.
    fn by_code(code: &SqlState, message: &str) -> Refusal {
        match code.code() {
            "42501" => Refusal::NoRight,
            // A gate whose tables are busy (`sql/0005_gate.sql`).
            "STR05" => Refusal::Away,
            "42P01" | "42883" | "3F000" if message.contains("strangler") => Refusal::NotInstalled,
            "3F000" => Refusal::OtherShape,
            code => match code.get(..2).unwrap_or_default() {
                "42" => Refusal::OtherShape,
                "08" | "25" | "26" | "28" | "40" | "53" | "55" | "57" | "58" | "XX" => Refusal::Away,
                _ => Refusal::Rows,
            },
        }
    }
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
        for code in ["23505", "22P02", "P0001", "MY001", "44000", "54000", "STR01"] {
            assert_eq!(of(code, ""), Refusal::Rows, "{code}");
        }
        for code in [
            "25P03", "25P02", "26000", "28000", "40001", "40P01", "53300", "55P03", "55006", "57014",
            "57P01", "58030", "08006", "XX000", "STR05",
        ] {
            assert_eq!(of(code, ""), Refusal::Away, "{code}");
        }
    }
}
