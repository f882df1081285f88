//! A socket in a folder, and who listens at it.

use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// `sockaddr_un` has room for 108 bytes, with a zero at the end (unix(7)).
const PATH_BYTES_MAX: usize = 107;

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

    /// The process that listens here, as the kernel says. Needs no answer of it, so it may stand still.
    pub(super) fn keeper(&self) -> Option<u32> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        connect(&socket, &SocketAddrUnix::new(&self.path).ok()?).ok()?;
        u32::try_from(socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get()).ok()
    }
}
