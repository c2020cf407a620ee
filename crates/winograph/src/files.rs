//! Files: written so that they are there as a whole or not at all; read only where they are regular ones, as far as they
//! say that they are long, and by several threads.

use crate::temporary::{Temporary, rename};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Bytes of a file that a thread reads at a time.
pub(crate) const PART: usize = 1 << 20;

/// Threads that read at most.
const READERS: usize = 8;

/// The bytes of a regular file: as many at most as it says that it has.
///
/// # Errors
/// Those of the system; a pipe, a device or a folder: it could be read without an end, or never be there.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let (file, len) = open(path.as_ref())?;
    let mut bytes = Vec::new();
    let size = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.try_reserve_exact(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A regular file, and how many bytes it says that it has: nobody should read more of it.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    // Opening some devices does something already.
    regular(&fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    // What has taken its name since is not waited for.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    let about = file.metadata()?;
    regular(&about)?;
    Ok((file, about.len()))
}

fn regular(about: &fs::Metadata) -> io::Result<()> {
    let cause = match (about.is_file(), about.is_dir()) {
        (true, _) => return Ok(()),
        (_, true) => "it is a folder, no regular file",
        _ => "it is no regular file but a pipe or a device: write what comes from it to a file and name that",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, cause))
}

/// Does what reads a part of a file for each part, on several threads: copying from the system's memory, and having it give pages
/// for what is copied, takes longer than one of them has.
///
/// # Errors
/// The first error of each thread ends it; one of these.
pub(crate) fn in_parts<T: Send>(parts: Vec<T>, read: impl Fn(T) -> io::Result<()> + Sync) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(READERS).min(parts.len());
    let parts = Mutex::new(parts.into_iter());
    let work = || -> io::Result<()> {
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            match next {
                Some(part) => read(part)?,
                None => return Ok(()),
            }
        }
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> =
            (1..threads).filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut done = work();
        for helper in helpers {
            let other = helper.join().unwrap_or_else(|_| Err(io::Error::other("a thread that reads it failed")));
            done = done.and(other);
        }
        done
    })
}

/// Writes a file so that nobody ever sees a part of it: whoever looks at `path` finds what was there before, or all of
/// `bytes`. On Linux the bytes have no name until they are complete, so that a process that is killed leaves nothing;
/// where a file system cannot do that they have a hidden name next to their own, which a
/// [`Cleanup`](crate::temporary::Cleanup) removes.
///
/// # Errors
/// Those of the system.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |out| out.write_all(bytes))
}

/// As [`write_atomically`], of what `write` writes piece by piece.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"));
    }
    // A name that is something else than a file, such as /dev/null, is written to as it is.
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return filled(OpenOptions::new().write(true).open(path)?, write).map(drop);
    }
    let temporary = match unnamed(folder) {
        Some(file) => {
            let file = filled(file, write)?;
            // What the name stands for after a crash of the machine.
            file.sync_data()?;
            Temporary::make(folder, TEMPORARY, |path| name(&file, path))?.1
        }
        None => {
            let (file, temporary) =
                Temporary::make(folder, TEMPORARY, |path| OpenOptions::new().write(true).create_new(true).open(path))?;
            filled(file, write)?.sync_data()?;
            temporary
        }
    };
    rename(&[(temporary.path(), path)])
}

fn filled(file: File, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<File> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(|e| e.into_error())
}

/// Around the number in the name of a file that is not complete.
const TEMPORARY: (&str, &str) = (".winograph-", ".tmp");

/// A file without a name in a folder's file system, where there are such.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Without this folder it could not be given a name.
    if !Path::new("/proc/self/fd").is_dir() {
        return None;
    }
    OpenOptions::new().write(true).mode(0o666).custom_flags(libc::O_TMPFILE).open(folder).ok()
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_folder: &Path) -> Option<File> {
    None
}

/// Gives a file without a name one.
#[cfg(target_os = "linux")]
fn name(file: &File, path: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both are strings that end in a zero byte and live until the call returns.
    let done =
        unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn name(_file: &File, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_far_as_it_says_that_it_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read(&path).unwrap(), b"abc");
        assert_eq!(open(&path).unwrap().1, 3);
        assert!(read(dir.path()).unwrap_err().to_string().contains("a folder"));
        assert_eq!(read(dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_replaced_whole_or_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wg");
        write_atomically(&path, b"one").unwrap();
        let failed = replace(&path, |out| {
            out.write_all(&[0; 100_000])?;
            Err(io::Error::other("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        assert!(write_atomically(dir.path(), b"x").is_err(), "a folder");
        assert!(write_atomically(&dir.path().join("none").join("a"), b"x").is_err(), "no folder");
        write_atomically(Path::new("/dev/null"), b"x").unwrap();
    }
}
