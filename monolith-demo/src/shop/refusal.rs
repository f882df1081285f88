//! Why a request was refused. Over HTTP every refusal is JSON: `{"error": {"code", "message", "hint"}}`.

use std::borrow::Cow;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use deadpool_postgres::PoolError;
use serde_json::json;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request itself is wrong: 400.
    #[error("{0}")]
    Malformed(String),
    /// What it speaks of does not exist: 404.
    #[error("there is no {what} {id}")]
    Absent { what: &'static str, id: String },
    /// The rules of the trade forbid it: 409.
    #[error("{message}")]
    Business {
        /// A stable word for programs.
        code: Cow<'static, str>,
        message: String,
    },
    /// The database refused or broke: 500, or 503 when the connection is gone.
    #[error("the database refused")]
    Database(#[from] tokio_postgres::Error),
    /// No connection to the database was to be had in time: 503.
    #[error("could not reach the database")]
    Pool(#[from] PoolError),
    /// The database holds something that this program does not understand: 500.
    #[error("the database holds something unexpected: {0}")]
    Unexpected(String),
}

impl Refusal {
    pub fn business(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Business { code: code.into(), message: message.into() }
    }

    #[must_use]
    pub fn no_order(id: i64) -> Self {
        Self::Absent { what: "order", id: id.to_string() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Absent { .. } => StatusCode::NOT_FOUND,
            Self::Business { .. } => StatusCode::CONFLICT,
            Self::Database(error) if error.is_closed() || error.as_db_error().is_none() => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Pool(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) | Self::Unexpected(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What failed, and the database's own words if it refused, with its detail and hint.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        if let Self::Database(error) = self {
            match error.as_db_error() {
                Some(words) => {
                    text += &format!(": {} (SQLSTATE {})", words.message(), words.code().code());
                    for (name, more) in [("detail", words.detail()), ("hint", words.hint())] {
                        text += &more.map_or_else(String::new, |more| format!("\n  {name}: {more}"));
                    }
                }
                None => text += &format!(": {error}"),
            }
        }
        text
    }

    /// Whether the database itself refused, and will refuse the same again. A lost connection, a deadlock, a timeout
    /// or a full server is another matter.
    #[must_use]
    pub fn is_final_in_database(&self) -> bool {
        let Self::Database(error) = self else { return false };
        let transient = ["08", "40", "53", "55", "57", "58"];
        let class = error.code().and_then(|code| code.code().get(..2));
        class.is_some_and(|class| !transient.contains(&class))
    }

    fn code_and_hint(&self) -> (&str, &'static str) {
        match self {
            Self::Malformed(_) => ("malformed", "Fix the request as the message says."),
            Self::Absent { .. } => ("absent", "List the orders with GET /orders."),
            Self::Business { code, .. } => (code, "Read the order again, then decide."),
            Self::Database(_) => ("database", "The server's log has the database's own message."),
            Self::Pool(_) => ("unreachable", "Start the database, or wait and try again."),
            Self::Unexpected(_) => ("unexpected", "Run the program with --migrate, then try again."),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let (code, hint) = self.code_and_hint();
        let mut message = self.to_string();
        if let Self::Database(error) = &self
            && let Some(words) = error.as_db_error()
        {
            message = format!("{message}: {}", words.message());
        }
        if status.is_server_error() {
            tracing::warn!(%status, error = ?self, "request failed");
        }
        let body = json!({ "error": { "code": code, "message": message, "hint": hint } });
        (status, Json(body)).into_response()
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::Malformed(rejection.body_text())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::Malformed(rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::Malformed(rejection.body_text())
    }
}
