//! The verbs, one per file: its options, and what it does.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod init;
pub(crate) mod install;
pub(crate) mod journal;
pub(crate) mod part;
pub(crate) mod route;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod tail;
pub(crate) mod uninstall;
pub(crate) mod up;
