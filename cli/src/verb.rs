//! The verbs, one per file: its options, and what it does.

pub mod check;
pub mod completions;
pub mod doctor;
pub mod down;
pub mod init;
pub mod install;
pub mod journal;
pub mod part;
pub mod route;
pub mod status;
pub mod sync;
pub mod tail;
pub mod uninstall;
pub mod up;
