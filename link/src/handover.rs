//! Hands a part's listening sockets from the process that runs to the one that takes its place. Connections that wait in
//! a socket's queue stay there, so none is refused.
//!
//! The process that runs offers its sockets at a Unix socket in the part's state folder ([`Offer`]). One that starts with
//! the same folder gets them ([`Inherited`]), makes itself ready, and only then says that it takes the place
//! ([`Predecessor::replace`]). Until then nothing changes for the other. `systemd` may pass sockets, too (sd_listen_fds(3)).
//!
//! The words of the two: `L` with the sockets, then `G` (I take your place), `A` (it is yours) with the [`Tenure`]. The end of
//! the connection is the end of the process.

mod door;
mod tenure;
mod word;

pub use door::Door;
pub use tenure::Tenure;

use std::io::{self, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SOCKET: &str = "handover";
/// A process that runs answers at once; one that stands still is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// So many processes may wait for the place at a time.
const ASKING_MAX: usize = 16;
/// How long one of them may take to become ready.
const READY_MAX: Duration = Duration::from_secs(600);
/// How long a part that does not work beside the next one may need for its end.
const END_MAX: Duration = Duration::from_secs(10);
/// How long a process waits for another one that takes the place just now: longer than that one may wait.
const TAKEN_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const SOCKETS: u8 = b'L';
const TAKE: u8 = b'G';
const YOURS: u8 = b'A';

/// The sockets that a process got at its start, and whose place it takes.
#[derive(Debug)]
pub struct Inherited {
    listeners: Vec<TcpListener>,
    claim: Claim,
}

/// Whether the place is this process's own.
#[derive(Debug)]
pub enum Claim {
    Ours(Tenure),
    /// Another process serves until [`Predecessor::replace`].
    Held(Predecessor),
}

/// The process that has the place now.
#[derive(Debug)]
pub struct Predecessor {
    stream: Blocking,
    folder: PathBuf,
}

/// A process whose place was taken. It ends what is under way.
#[derive(Debug)]
pub struct Leaving(UnixStream);

/// The sockets of this process, for the one that takes its place.
#[derive(Debug)]
pub struct Offer {
    /// `None` if no other process can ask here.
    door: Option<UnixListener>,
    ours: Arc<Ours>,
}

#[derive(Debug)]
struct Ours {
    listeners: Vec<TcpListener>,
    tenure: Arc<Tenure>,
    /// Whether a process was told that the place is its own. Only one is.
    is_given: AtomicBool,
}

/// The process that took the place. While this is kept, no third one takes it, even if the successor has ended.
#[derive(Debug)]
pub struct Successor {
    _stream: UnixStream,
    _tenure: Arc<Tenure>,
}

impl Inherited {
    /// What the process that runs with this folder, or `systemd`, passes on. Blocks while another process takes the place, for
    /// 15 s at most.
    ///
    /// # Errors
    /// If another process has the place and does not pass it on, or the folder cannot be read.
    pub fn of(folder: &Path) -> io::Result<Inherited> {
        Self::within(TAKEN_MAX, folder)
    }

    fn within(patience: Duration, folder: &Path) -> io::Result<Inherited> {
        let (mut listeners, until) = (passed(), Instant::now() + patience);
        loop {
            let failed = match asked(folder) {
                Ok((predecessor, inherited)) => {
                    listeners.extend(inherited);
                    return Ok(Inherited { listeners, claim: Claim::Held(predecessor) });
                }
                Err(error) => error,
            };
            if let Some(tenure) = Tenure::of(folder)? {
                return Ok(Inherited { listeners, claim: Claim::Ours(tenure) });
            }
            if Instant::now() >= until {
                let why = format!("another process has this place and does not hand it over: {failed}");
                return Err(io::Error::new(failed.kind(), why));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The inherited listener at `address`, or a new one. It does not block.
    ///
    /// # Errors
    /// If the address cannot be listened at.
    pub fn listener(&mut self, address: &str) -> io::Result<TcpListener> {
        let wanted: Vec<_> = address.to_socket_addrs()?.collect();
        let fits = |held: &TcpListener| held.local_addr().is_ok_and(|at| wanted.contains(&at));
        let listener = match self.listeners.iter().position(fits) {
            Some(at) => self.listeners.swap_remove(at),
            None => TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Closes the sockets that nobody asked for: one that is not served must not keep its clients waiting.
    pub fn into_claim(self) -> Claim {
        self.claim
    }
}

impl Predecessor {
    /// Takes the place: from here on the other accepts nothing. No [`Leaving`] if it has ended meanwhile.
    ///
    /// # Errors
    /// If another process took the place.
    pub async fn replace(self) -> io::Result<(Tenure, Option<Leaving>)> {
        let folder = self.folder.clone();
        match self.taken().await {
            Ok((tenure, stream)) => Ok((tenure, Some(Leaving(stream)))),
            Err(error) => Tenure::of(&folder)?.map(|tenure| (tenure, None)).ok_or(error),
        }
    }

    async fn taken(self) -> io::Result<(Tenure, UnixStream)> {
        self.stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(self.stream)?;
        stream.write_all(&[TAKE]).await?;
        let answer = stream.async_io(Interest::READABLE, || word::hear(&stream));
        match timeout(ANSWER_MAX, answer).await?? {
            (YOURS, locks) => Ok((Tenure::passed(self.folder, locks.into_iter().next()), stream)),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

impl Leaving {
    /// Waits until the other process has ended. False if it has not after `patience`.
    pub async fn ended(mut self, patience: Duration) -> bool {
        let end = async { while self.0.read_u8().await.is_ok() {} };
        timeout(patience, end).await.is_ok()
    }
}

impl Offer {
    /// Opens the door of the folder. If that fails, this process serves, and no other can take its place.
    pub fn at(tenure: Tenure, listeners: Vec<TcpListener>) -> Offer {
        let door = opened(tenure.folder());
        let door = door.map_err(|error| {
            let folder = tenure.folder().display();
            let remedy = format!(
                "make room in {folder} and give this user ownership of it; then start this part again"
            );
            tracing::warn!(%error, %remedy, "no other process can take this one's place while it runs");
        });
        let ours = Ours { listeners, tenure: Arc::new(tenure), is_given: AtomicBool::new(false) };
        Offer { door: door.ok(), ours: Arc::new(ours) }
    }

    /// Waits until another process has made itself ready, and takes the place.
    pub async fn taken(self) -> Successor {
        let Some(door) = self.door else { return std::future::pending().await };
        let mut asking = JoinSet::new();
        loop {
            tokio::select! {
                asker = door.accept(), if asking.len() < ASKING_MAX => match asker {
                    Ok((stream, _)) => {
                        let ours = Arc::clone(&self.ours);
                        asking.spawn(async move { timeout(READY_MAX, negotiated(stream, &ours)).await });
                    }
                    Err(_) => sleep(Duration::from_millis(100)).await,
                },
                Some(asked) = asking.join_next() => {
                    if let Ok(Ok(Ok(stream))) = asked {
                        return Successor { _stream: stream, _tenure: Arc::clone(&self.ours.tenure) };
                    }
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    #[error("the process that runs keeps its place")]
    Kept(#[source] io::Error),
}

/// The place of a part that does not work beside another one: waits for the end of the process that had it, while
/// connections wait in the listener's queue.
///
/// # Errors
/// If the address cannot be listened at, or the other process does not end.
pub async fn place(folder: &Path, address: &str) -> Result<(tokio::net::TcpListener, Offer), NoPlace> {
    let asked = folder.to_path_buf();
    let inherited = tokio::task::spawn_blocking(move || Inherited::of(&asked)).await;
    let inherited = inherited.map_err(io::Error::other).and_then(|inherited| inherited);
    let mut inherited = inherited.map_err(NoPlace::Kept)?;
    let listener = inherited.listener(address).map_err(NoPlace::Listen)?;
    let tenure = match inherited.into_claim() {
        Claim::Ours(tenure) => tenure,
        Claim::Held(predecessor) => {
            let (tenure, leaving) = predecessor.replace().await.map_err(NoPlace::Kept)?;
            if let Some(leaving) = leaving
                && !leaving.ended(END_MAX).await
            {
                return Err(NoPlace::Kept(ErrorKind::TimedOut.into()));
            }
            tenure
        }
    };
    let again = listener.try_clone().map_err(NoPlace::Listen)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(NoPlace::Listen)?;
    Ok((listener, Offer::at(tenure, vec![again])))
}

/// The process that hands the place in a folder over. `None` while one takes it, and if it cannot be handed over.
pub fn holder(folder: &Path) -> Option<u32> {
    Door::of(folder, SOCKET).ok()?.keeper()
}

fn opened(folder: &Path) -> io::Result<UnixListener> {
    let door = Door::of(folder, SOCKET)?;
    match std::fs::remove_file(folder.join(SOCKET)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(door.path()),
    }
}

/// Passes the sockets on, and waits until the other takes the place.
async fn negotiated(mut stream: UnixStream, ours: &Ours) -> io::Result<UnixStream> {
    let sockets: Vec<_> = ours.listeners.iter().map(AsFd::as_fd).collect();
    stream.async_io(Interest::WRITABLE, || word::say(&stream, SOCKETS, &sockets)).await?;
    if stream.read_u8().await? != TAKE {
        return Err(ErrorKind::InvalidData.into());
    }
    if ours.is_given.swap(true, SeqCst) {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let lock: Vec<_> = ours.tenure.descriptor().into_iter().collect();
    let given = stream.async_io(Interest::WRITABLE, || word::say(&stream, YOURS, &lock)).await;
    if let Err(error) = given {
        ours.is_given.store(false, SeqCst);
        return Err(error);
    }
    Ok(stream)
}

fn asked(folder: &Path) -> io::Result<(Predecessor, Vec<TcpListener>)> {
    let stream = Blocking::connect(Door::of(folder, SOCKET)?.path())?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let (_, sockets) = word::hear(&stream)?;
    let listeners = sockets.into_iter().map(TcpListener::from).collect();
    Ok((Predecessor { stream, folder: folder.to_path_buf() }, listeners))
}

/// The listening TCP sockets that `systemd` passes.
fn passed() -> Vec<TcpListener> {
    let mut given = listenfd::ListenFd::from_env();
    (0..given.len()).filter_map(|at| given.take_tcp_listener(at).ok().flatten()).collect()
}

#[cfg(test)]
mod tests;
