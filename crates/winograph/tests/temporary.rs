//! What a program that is told to end removes before it does. One test: it is about all of this process.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use winograph::cpu::{Cache, Compiler, Fetched};
use winograph::temporary::Cleanup;

/// A compiler that has another process write as well, and never ends.
const ENDLESS: &str = "#!/bin/sh
while [ \"$1\" != -o ]; do shift; done
write() { while :; do echo half > \"$TMPDIR/$1.o\"; sleep 0.01; done; }
write behind \"$2\" &
echo half > \"$2\"
write own
";

const SOURCE: &str = "int nothing(void) { return 0; }";

#[test]
fn a_cleanup_removes_what_is_temporary_and_holds_others_back_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (kept, temp, script) = (at("cache"), at("temp"), at("cc"));
    fs::create_dir(&temp).unwrap();
    fs::write(&script, ENDLESS).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var_os("PATH");
    let find = |cc| Compiler::find(cc, path.as_deref(), 16).unwrap();
    let (endless, real) = (find(Some(script.as_os_str())), find(None));
    let cache = |kept| Cache::new(kept, temp.clone(), 1 << 30);
    let count = |folder| fs::read_dir(folder).map_or(0, Iterator::count);
    let cleanup = Cleanup::new();
    for folder in [&kept, &temp] {
        let cache = cache((folder == &kept).then(|| kept.clone()));
        std::thread::scope(|scope| {
            let compiling = scope.spawn(|| cache.load(SOURCE, &endless, "").map(|loaded| loaded.1));
            let writes = |path: std::path::PathBuf| path.join("behind.o").exists() && path.join("own.o").exists();
            let start = Instant::now();
            while !fs::read_dir(folder).is_ok_and(|mut all| all.any(|e| writes(e.unwrap().path()))) {
                assert!(start.elapsed() < Duration::from_secs(60), "no compiler was started in {}", folder.display());
                std::thread::sleep(Duration::from_millis(5));
            }
            let start = Instant::now();
            cleanup.run(|| {
                assert!(start.elapsed() < Duration::from_secs(2), "compilers end when they are killed");
                assert_eq!((count(&kept), count(&temp)), (0, 0));
                std::thread::sleep(Duration::from_millis(50));
                assert!(!compiling.is_finished(), "nobody is told before it is over");
                assert_eq!((count(&kept), count(&temp)), (0, 0), "and nothing is made");
            });
            if folder == &kept {
                // It goes on in the other folder.
                let start = Instant::now();
                while count(&temp) == 0 {
                    assert!(start.elapsed() < Duration::from_secs(60), "the thread does not go on");
                    std::thread::sleep(Duration::from_millis(5));
                }
                cleanup.run(|| assert_eq!((count(&kept), count(&temp)), (0, 0)));
            }
            let e = compiling.join().unwrap().unwrap_err().to_string();
            assert!(e.contains("the C compiler failed (signal: 9"), "{e}");
        });
    }
    // The process goes on as if nothing had been.
    assert_eq!(cache(Some(kept.clone())).load(SOURCE, &real, "").unwrap().1, Fetched::Stored);
    assert_eq!(cache(Some(kept.clone())).load(SOURCE, &real, "").unwrap().1, Fetched::Cached);
    assert_eq!((count(&kept), count(&temp)), (2, 0));
}
