//! What the journal said when this folder's controller read it last, in a file. It is for an emergency alone: while the journal
//! cannot be read, a controller that has just started knows nothing else. Others may have decided more since then.

use migrations::journal::State;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// None in a simulation, and for a journal in a file beside it.
    path: Option<PathBuf>,
    state: Mutex<Option<State>>,
}

impl Remembered {
    pub(crate) fn read(path: PathBuf) -> Self {
        let read =
            std::fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        let state = match read {
            Ok(state) => Some(state),
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "what the journal said last cannot be read");
                }
                None
            }
        };
        Self { path: Some(path), state: Mutex::new(state) }
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what the journal says, if that is news.
    pub(crate) fn keep(&self, state: &State) {
        let Some(path) = &self.path else { return };
        let mut kept = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |state: &State| (state.journal, state.generation);
        if kept.as_ref().map(place) == Some(place(state)) {
            return;
        }
        let written = serde_json::to_vec(state).map_err(io::Error::from);
        match written.and_then(|bytes| link::file::replace(path, &bytes)) {
            Ok(()) => *kept = Some(state.clone()),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "what the journal says cannot be kept")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::journal::{Generation, JournalId};

    #[test]
    fn what_the_journal_said_outlives_the_controller() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("remembered.json");
        assert_eq!(Remembered::read(path.clone()).state(), None);
        let mut state = State::empty(JournalId(uuid::Uuid::from_u128(1)));
        for generation in [3, 4] {
            state.generation = Generation(generation);
            Remembered::read(path.clone()).keep(&state);
            assert_eq!(Remembered::read(path.clone()).state().as_ref(), Some(&state));
        }
        std::fs::write(&path, "half a").unwrap();
        assert_eq!(Remembered::read(path).state(), None);
    }
}
