//! Hands a part's listening sockets from the process that runs to the one that takes its place. Connections that wait in
//! a socket's queue stay there, so none is refused.
//!
//! The process that runs offers its sockets at a Unix socket in the part's state folder ([`Offer`]). One that starts with
//! the same folder gets them ([`Inherited`]), makes itself ready, and only then says that it takes the place
//! ([`Predecessor::replace`]). Until then nothing changes for the other. `systemd` may pass sockets, too (sd_listen_fds(3)).
//!
//! Each word of the two is one byte: sockets, then `G` (I take your place), `A` (it is yours), `Q` (nothing is under way any
//! more). The end of the connection is the end of the process.

use crate::file;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SOCKET: &str = "handover";
/// Which process has the place, for whoever waits for a change.
const HOLDER: &str = "handover.pid";
/// A part has two listeners at most.
const SOCKETS_MAX: usize = 8;
/// A process that runs answers at once; one that stands still is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// So many processes may wait for the place at a time.
const ASKING_MAX: usize = 16;
/// How long one of them may take to become ready.
const READY_MAX: Duration = Duration::from_secs(600);
/// `sockaddr_un` has room for 108 bytes, with a zero at the end (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// How long a part that does not work beside the next one may need for its end.
const END_MAX: Duration = Duration::from_secs(10);

const TAKE: u8 = b'G';
const YOURS: u8 = b'A';
const QUIET: u8 = b'Q';

/// The sockets that a process got at its start.
#[derive(Debug, Default)]
pub struct Inherited {
    listeners: Vec<TcpListener>,
    predecessor: Option<Predecessor>,
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
    socket: UnixListener,
    listeners: Arc<Vec<TcpListener>>,
    /// Whether a process was told that the place is its own. Only one is.
    given: Arc<AtomicBool>,
}

/// The process that took the place.
#[derive(Debug)]
pub struct Successor(UnixStream);

impl Inherited {
    /// What the process that runs with this folder, or `systemd`, passes on. A process that passes nothing counts as ended.
    pub fn of(folder: &Path) -> Inherited {
        let mut inherited = Inherited { listeners: passed(), predecessor: None };
        match asked(folder) {
            Ok((predecessor, listeners)) => {
                inherited.listeners.extend(listeners);
                inherited.predecessor = Some(predecessor);
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => tracing::warn!(%error, "the process that runs does not hand its listeners over"),
        }
        inherited
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

    /// The process to replace, if there is one. It serves until [`Predecessor::replace`].
    pub fn predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }
}

impl Predecessor {
    /// Takes the place: from here on the other accepts nothing. None if it has ended meanwhile.
    ///
    /// # Errors
    /// If another process took the place.
    pub async fn replace(self) -> io::Result<Option<Leaving>> {
        let taken = async {
            self.stream.set_nonblocking(true)?;
            let mut stream = UnixStream::from_std(self.stream)?;
            stream.write_all(&[TAKE]).await?;
            let answer = timeout(ANSWER_MAX, stream.read_u8()).await??;
            if answer == YOURS { Ok(stream) } else { Err(io::Error::from(ErrorKind::InvalidData)) }
        };
        match taken.await {
            Ok(stream) => Ok(Some(Leaving(stream))),
            Err(_) if Blocking::connect(Door::of(&self.folder, SOCKET)?.path()).is_err() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Leaving {
    /// Waits until no client of the other process can learn anything new from it.
    pub async fn quiet(&mut self) {
        let _ = self.0.read_u8().await;
    }

    /// Waits until the other process has ended. False if it has not after `patience`.
    pub async fn ended(mut self, patience: Duration) -> bool {
        let end = async { while self.0.read_u8().await.is_ok() {} };
        timeout(patience, end).await.is_ok()
    }
}

impl Offer {
    /// Takes the place in the folder.
    ///
    /// # Errors
    /// The file system's.
    pub fn at(folder: &Path, listeners: Vec<TcpListener>) -> io::Result<Offer> {
        let door = Door::of(folder, SOCKET)?;
        match std::fs::remove_file(folder.join(SOCKET)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(door.path())?;
        file::replace(&folder.join(HOLDER), std::process::id().to_string().as_bytes())?;
        Ok(Offer { socket, listeners: Arc::new(listeners), given: Arc::default() })
    }

    /// Waits until another process has made itself ready, and takes the place.
    pub async fn taken(self) -> Successor {
        let mut asking = JoinSet::new();
        loop {
            tokio::select! {
                asker = self.socket.accept(), if asking.len() < ASKING_MAX => match asker {
                    Ok((stream, _)) => {
                        let (listeners, given) = (Arc::clone(&self.listeners), Arc::clone(&self.given));
                        asking.spawn(async move { timeout(READY_MAX, negotiated(stream, &listeners, &given)).await });
                    }
                    Err(_) => sleep(Duration::from_millis(100)).await,
                },
                Some(asked) = asking.join_next() => {
                    if let Ok(Ok(Ok(stream))) = asked {
                        return Successor(stream);
                    }
                }
            }
        }
    }
}

impl Successor {
    /// Says that no client can learn anything new from this process.
    pub async fn be_quiet(&mut self) {
        // It may have ended. Then nobody needs to know.
        let _ = self.0.write_all(&[QUIET]).await;
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    #[error("the process that runs keeps its place")]
    Kept(#[source] io::Error),
    #[error("cannot use the state folder")]
    Folder(#[source] io::Error),
}

/// The place of a part that does not work beside another one: waits for the end of the process that had it, while
/// connections wait in the listener's queue.
///
/// # Errors
/// If the address cannot be listened at, or the other process does not end.
pub async fn place(folder: &Path, address: &str) -> Result<(tokio::net::TcpListener, Offer), NoPlace> {
    let mut inherited = Inherited::of(folder);
    let listener = inherited.listener(address).map_err(NoPlace::Listen)?;
    if let Some(predecessor) = inherited.predecessor()
        && let Some(leaving) = predecessor.replace().await.map_err(NoPlace::Kept)?
        && !leaving.ended(END_MAX).await
    {
        return Err(NoPlace::Kept(ErrorKind::TimedOut.into()));
    }
    let again = listener.try_clone().map_err(NoPlace::Listen)?;
    let offer = Offer::at(folder, vec![again]).map_err(NoPlace::Folder)?;
    Ok((tokio::net::TcpListener::from_std(listener).map_err(NoPlace::Listen)?, offer))
}

/// Which process has the place in a folder, or had it last.
pub fn holder(folder: &Path) -> Option<u32> {
    std::fs::read_to_string(folder.join(HOLDER)).ok()?.trim().parse().ok()
}

/// Passes the sockets on, and waits until the other takes the place.
async fn negotiated(
    mut stream: UnixStream,
    listeners: &[TcpListener],
    given: &AtomicBool,
) -> io::Result<UnixStream> {
    let sockets: Vec<_> = listeners.iter().take(SOCKETS_MAX).map(AsFd::as_fd).collect();
    stream.writable().await?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(&stream, &[IoSlice::new(b"L")], &mut control, SendFlags::empty())?;
    if stream.read_u8().await? != TAKE {
        return Err(ErrorKind::InvalidData.into());
    }
    if given.swap(true, SeqCst) {
        return Err(ErrorKind::AlreadyExists.into());
    }
    if let Err(error) = stream.write_all(&[YOURS]).await {
        given.store(false, SeqCst);
        return Err(error);
    }
    Ok(stream)
}

fn asked(folder: &Path) -> io::Result<(Predecessor, Vec<TcpListener>)> {
    let stream = Blocking::connect(Door::of(folder, SOCKET)?.path())?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let read = recvmsg(&stream, &mut [IoSliceMut::new(&mut word)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if read.bytes == 0 {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    let mut listeners = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            listeners.extend(sockets.map(|socket: OwnedFd| TcpListener::from(socket)));
        }
    }
    Ok((Predecessor { stream, folder: folder.to_path_buf() }, listeners))
}

/// The listening TCP sockets that `systemd` passes.
fn passed() -> Vec<TcpListener> {
    let mut given = listenfd::ListenFd::from_env();
    (0..given.len()).filter_map(|at| given.take_tcp_listener(at).ok().flatten()).collect()
}

/// A path to a socket that is short enough for the kernel, however long the folder's is.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    /// The path leads through it.
    _folder: Option<File>,
}

impl Door {
    /// # Errors
    /// If the folder cannot be opened.
    pub fn of(folder: &Path, name: &str) -> io::Result<Door> {
        let path = folder.join(name);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Door { path, _folder: None });
        }
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Door { path, _folder: Some(folder) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;

    fn listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    #[tokio::test]
    async fn a_listener_passes_to_the_next_process_with_who_waits_at_it() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let folder = folder.path().join("a".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        let (first, other) = (listener(), listener());
        let address = first.local_addr().unwrap();
        let offer = Offer::at(&folder, vec![first.try_clone().unwrap(), other]).unwrap();
        let offered = tokio::spawn(offer.taken());
        let asking = folder.clone();
        let mut inherited = tokio::task::spawn_blocking(move || Inherited::of(&asking)).await.unwrap();
        let mut waiting = TcpStream::connect(address).unwrap();
        let next = inherited.listener(&address.to_string()).unwrap();
        drop(first);

        let leaving = inherited.predecessor().unwrap().replace();
        let (leaving, successor) = tokio::join!(leaving, offered);
        let (mut leaving, mut successor) = (leaving.unwrap().unwrap(), successor.unwrap());
        tokio::join!(leaving.quiet(), successor.be_quiet());
        drop(successor);
        assert!(leaving.ended(Duration::from_secs(5)).await);
        let (mut accepted, _) = next.accept().unwrap();
        std::io::Write::write_all(&mut accepted, b"x").unwrap();
        waiting.read_exact(&mut [0]).unwrap();
    }

    #[tokio::test]
    async fn one_of_two_takes_the_place_and_who_leaves_before_takes_none() {
        let folder = tempfile::tempdir().unwrap();
        let offer = Offer::at(folder.path(), vec![listener()]).unwrap();
        let offered = tokio::spawn(offer.taken());
        let ask = || {
            let folder = folder.path().to_path_buf();
            async move { tokio::task::spawn_blocking(move || Inherited::of(&folder)).await.unwrap() }
        };
        drop(ask().await);
        let (mut one, mut two) = (ask().await, ask().await);
        let (one, two) = (one.predecessor().unwrap(), two.predecessor().unwrap());
        assert!(one.replace().await.unwrap().is_some());
        let successor = offered.await.unwrap();
        // The one has the place, as its own offer shows.
        let _offer = Offer::at(folder.path(), Vec::new()).unwrap();
        assert!(two.replace().await.is_err());
        assert_eq!(holder(folder.path()), Some(std::process::id()));
        drop(successor);
    }

    /// Two that speak at once: both words are read before either answer.
    #[tokio::test]
    async fn one_of_two_that_ask_at_once_gets_the_place() {
        let given = AtomicBool::new(false);
        let (mut one, ours) = UnixStream::pair().unwrap();
        let (mut two, also_ours) = UnixStream::pair().unwrap();
        for asker in [&mut one, &mut two] {
            asker.write_all(&[TAKE]).await.unwrap();
        }
        let sockets = [listener()];
        let (first, second) =
            tokio::join!(negotiated(ours, &sockets, &given), negotiated(also_ours, &sockets, &given));
        assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
    }

    #[tokio::test]
    async fn who_has_ended_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let offer = Offer::at(folder.path(), vec![listener()]).unwrap();
        let offered = tokio::spawn(offer.taken());
        let asking = folder.path().to_path_buf();
        let mut inherited = tokio::task::spawn_blocking(move || Inherited::of(&asking)).await.unwrap();
        offered.abort();
        let _ = offered.await;
        assert!(inherited.predecessor().unwrap().replace().await.unwrap().is_none());
        assert!(Inherited::of(folder.path()).predecessor().is_none(), "a socket that nobody serves");
    }
}
