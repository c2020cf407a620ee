//! Temporary files and folders, and the C compilers that write to them: who is told to end in the middle of it removes all
//! of them by a [`Cleanup`]. This library handles no signals; its program does, or leaves it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long compilers that were killed are waited for: one that waits for a disk that does not answer ends later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at a compiler that has closed its output and has not ended.
const PAUSE: Duration = Duration::from_millis(1);

/// What there is now.
struct Live {
    paths: BTreeSet<PathBuf>,
    compilers: BTreeSet<u32>,
    /// Whether a cleanup runs: nothing is made, moved or told until it is over.
    held: bool,
}

static LIVE: Mutex<Live> = Mutex::new(Live { paths: BTreeSet::new(), compilers: BTreeSet::new(), held: false });
static CHANGED: Condvar = Condvar::new();

/// Whether compilers are started in process groups of their own.
static GROUPS: AtomicBool = AtomicBool::new(false);

fn lock() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], once no cleanup runs.
fn lock_free() -> MutexGuard<'static, Live> {
    released(lock())
}

fn released(live: MutexGuard<'static, Live>) -> MutexGuard<'static, Live> {
    CHANGED.wait_while(live, |l| l.held).unwrap_or_else(PoisonError::into_inner)
}

/// What removes all temporary files of this process before it ends early.
///
/// ```
/// let cleanup = winograph::temporary::Cleanup::new();
/// // In a thread that waits for signals, not in a signal's handler:
/// cleanup.run(|| println!("nothing is left: the process may end here"));
/// ```
#[derive(Debug)]
pub struct Cleanup(());

impl Cleanup {
    /// From now on C compilers are started in process groups of their own, so that [`run`](Cleanup::run) can end each with the
    /// processes that it has started. What a terminal sends to this process's group, on Ctrl-C, does not reach them any more: whoever
    /// calls this has `run` called then.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Cleanup {
        GROUPS.store(true, Ordering::Relaxed);
        Cleanup(())
    }

    /// Kills the C compilers that run, removes the temporary files and folders and does something, such as ending the
    /// process, while nothing new is made: threads that want to wait until it is done. If the process goes on, those
    /// whose compilers were killed get errors.
    pub fn run<T>(&self, then: impl FnOnce() -> T) -> T {
        /// Lets the others go on, also after a panic.
        struct Held;
        impl Drop for Held {
            fn drop(&mut self) {
                lock().held = false;
                CHANGED.notify_all();
            }
        }
        let mut live = lock_free();
        live.held = true;
        let _held = Held;
        live.compilers.iter().for_each(|&id| kill(id));
        let ended = CHANGED.wait_timeout_while(live, PATIENCE, |l| !l.compilers.is_empty());
        let mut live = ended.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::take(&mut live.paths).iter().for_each(|path| remove(path));
        drop(live);
        then()
    }
}

/// Ends a compiler that is not waited for yet, with its group if it leads one.
#[cfg(unix)]
fn kill(id: u32) {
    let Ok(id) = libc::pid_t::try_from(id) else { return };
    // SAFETY: it takes numbers alone. The process is a child that was not waited for, so that its number is no other's.
    unsafe {
        if libc::kill(-id, libc::SIGKILL) != 0 {
            libc::kill(id, libc::SIGKILL);
        }
    }
}

#[cfg(not(unix))]
fn kill(_id: u32) {}

fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
}

/// A file or folder that is removed, with all that is in it, when this is dropped or by a [`Cleanup`], unless it has been
/// moved by [`rename`].
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// Makes something by `make` under a name in `folder` that nothing has, between a prefix and a suffix.
    pub(crate) fn make<T>(
        folder: &Path,
        (prefix, suffix): (&str, &str),
        mut make: impl FnMut(&Path) -> io::Result<T>,
    ) -> io::Result<(T, Temporary)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let mut live = lock_free();
        let mut tries = 0;
        loop {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{prefix}{}-{n}{suffix}", std::process::id()));
            tries += 1;
            match make(&path) {
                Ok(made) => {
                    live.paths.insert(path.clone());
                    return Ok((made, Temporary(path)));
                }
                // Another process may have had this number, or share the folder from another machine.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < 1000 => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if lock_free().paths.remove(&self.0) {
            remove(&self.0);
        }
    }
}

/// Renames files one after another, all or none of them where a [`Cleanup`] comes; they are temporary no more.
///
/// # Errors
/// That of the first which cannot be renamed; those after it stay.
pub(crate) fn rename(pairs: &[(&Path, &Path)]) -> io::Result<()> {
    let mut live = lock_free();
    for (from, to) in pairs {
        fs::rename(from, to)?;
        live.paths.remove(*from);
    }
    Ok(())
}

/// A compiler that a [`Cleanup`] kills; killed when dropped before it has ended.
pub(crate) struct Compiling {
    pub(crate) child: Child,
    ended: bool,
}

/// Starts a compiler.
pub(crate) fn start(command: &mut Command) -> io::Result<Compiling> {
    #[cfg(unix)]
    if GROUPS.load(Ordering::Relaxed) {
        std::os::unix::process::CommandExt::process_group(command, 0);
    }
    let mut live = lock_free();
    let child = command.spawn()?;
    live.compilers.insert(child.id());
    Ok(Compiling { child, ended: false })
}

impl Compiling {
    /// Waits for its end. Where a [`Cleanup`] has killed it nobody is told so before that is over.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            let mut live = lock();
            // Waited for under the lock: a number that is in the list is no other process's.
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                live.compilers.remove(&self.child.id());
                CHANGED.notify_all();
                drop(released(live));
                return Ok(status);
            }
            drop(live);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        if !self.ended {
            kill(self.child.id());
            let _ = self.child.kill();
            let _ = self.wait();
        }
    }
}
