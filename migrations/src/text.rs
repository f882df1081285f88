//! Values that are written as one text, on the wire, in files and by people, and what is said of a text that is none.

use crate::code::Code;
use crate::problem::Diagnostic;
use std::borrow::Cow;

/// A text that is not the value that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {why}")]
pub struct BadText {
    text: String,
    why: &'static str,
    remedy: Cow<'static, str>,
}

impl BadText {
    /// `why` goes on where the text ends: `is not a name`.
    pub(crate) fn new(text: &str, why: &'static str, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.to_owned(), why, remedy: remedy.into() }
    }
}

impl Diagnostic for BadText {
    fn code(&self) -> Code {
        Code::PlanBadValue
    }

    fn remedy(&self) -> String {
        self.remedy.to_string()
    }
}

/// What serde's `try_from` and `into` need of a type that is parsed and shown as a text.
macro_rules! travels_as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = $crate::text::BadText;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

pub(crate) use travels_as_text;
