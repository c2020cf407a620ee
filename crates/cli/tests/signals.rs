//! What is left of a command that is told to end while C is compiled.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Tells its process number, writes a part of what it is to write and temporary files beside it, again and again, by a process
/// behind it as well, and never ends.
const COMPILER: &str = r#"#!/bin/sh
while [ "$1" != -o ]; do shift; done
write() { while :; do echo half > "$TMPDIR/$1.o"; echo half > "$2"; sleep 0.01; done; }
write behind "$2" &
echo $! > "$STARTED.behind"
echo $$ > "$STARTED.new"
mv "$STARTED.new" "$STARTED"
write own "$2"
"#;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("signals-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        for folder in ["temp", "cache"] {
            std::fs::create_dir_all(path.join(folder)).unwrap();
        }
        std::fs::write(path.join("cc"), COMPILER).unwrap();
        std::fs::set_permissions(path.join("cc"), std::fs::Permissions::from_mode(0o755)).unwrap();
        Place(path)
    }

    /// The command, once a compiler writes; with these signals ignored from its start.
    fn start(&self, cache: bool, ignored: &'static [i32]) -> Child {
        let _ = std::fs::remove_file(self.0.join("started"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
        command.args(["bench", "conv"]).env("TMPDIR", self.0.join("temp")).env("WINOGRAPH_CC", self.0.join("cc"));
        command.env("WINOGRAPH_CACHE_DIR", self.0.join("cache")).env("STARTED", self.0.join("started"));
        command.env("WINOGRAPH_CACHE", if cache { "1" } else { "0" }).process_group(0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let set = move || {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
                let how = if ignored.contains(&signal) { libc::SIG_IGN } else { libc::SIG_DFL };
                // SAFETY: it may be called between fork and exec, and no handler of this process is meant.
                unsafe { libc::signal(signal, how) };
            }
            Ok(())
        };
        // SAFETY: it calls `signal` alone.
        let child = unsafe { command.pre_exec(set) }.spawn().unwrap();
        let start = Instant::now();
        while !self.0.join("started").exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "no compiler was started");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    fn check_nothing_is_left(&self) {
        for folder in ["temp", "cache"] {
            let names: Vec<_> =
                std::fs::read_dir(self.0.join(folder)).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(names.is_empty(), "{folder}: {names:?}");
        }
        for name in ["started", "started.behind"] {
            let id = std::fs::read_to_string(self.0.join(name)).unwrap();
            let start = Instant::now();
            // Who was killed may not be waited for yet by who takes on orphans.
            while runs(id.trim()) {
                assert!(start.elapsed() < Duration::from_secs(5), "the compiler is still there");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether there is a process of this number that is no zombie.
fn runs(id: &str) -> bool {
    let out = Command::new("ps").args(["-o", "stat=", "-p", id]).output().unwrap();
    let state = String::from_utf8_lossy(&out.stdout).trim().to_string();
    !state.is_empty() && !state.starts_with('Z')
}

fn send(signal: i32, to: i32) {
    // SAFETY: it takes numbers alone; they are those of a child that was not waited for, or of its group.
    assert_eq!(unsafe { libc::kill(to, signal) }, 0);
}

fn ended(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > Duration::from_secs(20) {
            let _ = child.kill();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_command_that_is_told_to_end_while_c_is_compiled_leaves_nothing() {
    let place = Place::new("left");
    for cache in [true, false] {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // Ctrl-C reaches all of the group; `kill` the process alone.
            for group in [true, false] {
                let mut child = place.start(cache, &[]);
                let id = child.id() as i32;
                send(signal, if group { -id } else { id });
                assert_eq!(ended(&mut child).signal(), Some(signal));
                place.check_nothing_is_left();
            }
        }
    }
}

#[test]
fn a_second_signal_is_not_swallowed_and_ends_it() {
    let place = Place::new("twice");
    for _ in 0..5 {
        let mut child = place.start(true, &[]);
        let id = child.id() as i32;
        send(libc::SIGINT, id);
        send(libc::SIGTERM, id);
        assert!(matches!(ended(&mut child).signal(), Some(libc::SIGINT | libc::SIGTERM)));
        for name in ["started", "started.behind"] {
            // Where the second one came first in the cleanup's way, the compiler has to be ended here.
            let id = std::fs::read_to_string(place.0.join(name)).unwrap();
            let _ = Command::new("kill").args(["-KILL", id.trim()]).stderr(Stdio::null()).status();
        }
    }
}

#[test]
fn signals_that_are_ignored_from_the_start_stay_so() {
    let place = Place::new("ignored");
    let mut child = place.start(true, &[libc::SIGHUP, libc::SIGINT]);
    let id = child.id() as i32;
    send(libc::SIGHUP, id);
    send(libc::SIGINT, -id);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "as under nohup");
    send(libc::SIGTERM, id);
    assert_eq!(ended(&mut child).signal(), Some(libc::SIGTERM));
    place.check_nothing_is_left();
}
