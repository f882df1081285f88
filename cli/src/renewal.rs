//! What `reload` and `up` say to the `up` that runs, over a socket in the state folder that only its user can use: take this
//! plan, and put new processes in the place of those that run.

use crate::house::House;
use crate::invocation::Source;
use link::handover::Door;
use migrations::code::Code;
use migrations::problem::Problem;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::timeout;

/// Beside the records of what runs.
const SOCKET: &str = "up.sock";
/// A plan of 1 MiB, escaped, with what its variables hold.
const WISH_BYTES_MAX: u64 = 16 << 20;
const WISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than each part may take to be replaced.
const WORD_TIMEOUT: Duration = Duration::from_secs(120);
const WORDS_MAX: usize = 32;

/// Not `Debug`: what the variables hold may be secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct Renewal {
    pub(crate) source: Source,
    pub(crate) executable: PathBuf,
    /// Whether parts are replaced that the edit does not touch.
    pub(crate) every_part: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// A part that was replaced, and how long it took.
    Replaced {
        part: String,
        ms: u64,
    },
    /// A part that the plan needs no more.
    Stopped {
        part: String,
    },
    Done,
    Failed(Problem),
}

pub(crate) struct Asked {
    pub(crate) renewal: Renewal,
    pub(crate) words: Sender<Word>,
}

/// Takes wishes until the result is dropped. Fails if the folder's file system has no Unix sockets, or the path is too long.
pub(crate) fn listen(house: &House) -> std::io::Result<Receiver<Asked>> {
    let door = Door::of(&house.dir().join("run"), SOCKET)?;
    let _ = std::fs::remove_file(house.dir().join("run").join(SOCKET));
    let socket = UnixListener::bind(door.path())?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while !sender.is_closed() {
            match socket.accept().await {
                // One after the other: a second wish is told that the first one is under way.
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, sender.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    });
    Ok(receiver)
}

async fn converse(stream: UnixStream, asked: Sender<Asked>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(WISH_BYTES_MAX));
    if !matches!(timeout(WISH_TIMEOUT, read.read_line(&mut line)).await, Ok(Ok(_))) {
        return;
    }
    let Ok(renewal) = serde_json::from_str(&line) else { return };
    let (words, mut said) = mpsc::channel(WORDS_MAX);
    if asked.send(Asked { renewal, words }).await.is_err() {
        return;
    }
    while let Some(word) = said.recv().await {
        let Ok(mut text) = serde_json::to_string(&word) else { return };
        text.push('\n');
        // Who asked may have left. The work goes on.
        if write.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Asks the `up` of this house, and returns when it is done. `report` gets each part that was replaced.
pub(crate) async fn ask(
    house: &House,
    renewal: &Renewal,
    mut report: impl FnMut(&Word),
) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(
            Code::UpRunning,
            "the `strangler up` that runs here cannot be asked to replace its parts",
            "it may be of an older version: `strangler down`, then `strangler up --detach`",
        )
        .because(&error)
    };
    let door = Door::of(&house.dir().join("run"), SOCKET).map_err(failed)?;
    let mut stream = UnixStream::connect(door.path()).await.map_err(failed)?;
    let mut wish = serde_json::to_vec(renewal).map_err(|error| failed(error.into()))?;
    wish.push(b'\n');
    stream.write_all(&wish).await.map_err(failed)?;
    let mut lines = BufReader::new(stream).lines();
    loop {
        let line = match timeout(WORD_TIMEOUT, lines.next_line()).await {
            Ok(line) => line.map_err(failed)?.ok_or_else(unfinished)?,
            Err(_) => return Err(unfinished()),
        };
        match serde_json::from_str(&line).map_err(|error| failed(error.into()))? {
            Word::Done => return Ok(()),
            Word::Failed(problem) => return Err(problem),
            word => report(&word),
        }
    }
}

fn unfinished() -> Problem {
    Problem::new(
        Code::CommandTimedOut,
        "the `strangler up` that runs here did not say how the replacement ended",
        "look at `strangler status` and .strangler/log/up.log",
    )
}
