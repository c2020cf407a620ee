//! Signals that ask the command to end: Ctrl-C, `kill`, a terminal that is closed. What is temporary goes first.

#[cfg(unix)]
pub(crate) use unix::watch;

/// Elsewhere the system's ways of ending a process have to do.
#[cfg(not(unix))]
pub(crate) fn watch() {}

#[cfg(unix)]
mod unix {
    use libc::c_int;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::{flag, low_level};
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use winograph::temporary::Cleanup;

    /// From now on the first of these signals removes temporary files and then does what it does by default; the second
    /// one does so at once. Signals that this process was started to ignore, by `nohup` say, are ignored.
    pub(crate) fn watch() {
        let signals: Vec<c_int> = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|&s| !is_ignored(s)).collect();
        let seen = Arc::new(AtomicBool::new(false));
        if handle(&signals, &seen).is_err() {
            seen.store(true, Ordering::SeqCst);
        }
    }

    fn handle(signals: &[c_int], seen: &Arc<AtomicBool>) -> io::Result<()> {
        for &signal in signals {
            flag::register_conditional_default(signal, seen.clone())?;
        }
        let mut arriving = Signals::new(signals)?;
        let cleanup = Cleanup::new();
        let wait = move || {
            if let Some(signal) = arriving.forever().next() {
                cleanup.run(|| drop(low_level::emulate_default_handler(signal)));
            }
        };
        std::thread::Builder::new().name("signals".to_string()).spawn(wait)?;
        for &signal in signals {
            flag::register(signal, seen.clone())?;
        }
        Ok(())
    }

    fn is_ignored(signal: c_int) -> bool {
        let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action it writes the present one to where it is told, and zeros are an action as well.
        unsafe {
            libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
                && now.assume_init().sa_sigaction == libc::SIG_IGN
        }
    }
}
