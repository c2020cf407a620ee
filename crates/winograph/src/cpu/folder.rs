//! The folders that compiled kernels and plans are kept in: who may write to it, and how large it grows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Age from which a temporary file was left by a process that ended early.
const STALE: Duration = Duration::from_secs(3600);

/// A used library is marked as such at most this often.
const MARK: Duration = Duration::from_secs(3600);

/// The name of what depends on these texts alone: equal for the same texts, cut in the same places.
pub(crate) fn key(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Makes a folder, with those above it, for this user alone; folders that are there stay as they are.
pub(crate) fn create(dir: &Path) -> io::Result<()> {
    builder().recursive(true).create(dir)
}

/// Makes a folder for this user alone; one that is there is an error.
pub(super) fn create_new(dir: &Path) -> io::Result<()> {
    builder().create(dir)
}

fn builder() -> fs::DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Whether nobody but this user and the system's can put files into a folder, or exchange it: what is in it is loaded
/// into this process. The error says what is wrong and how to mend it.
#[cfg(unix)]
pub(crate) fn check_private(dir: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let refused = |path: &Path, why: &str| {
        format!("{} {why}; `chmod go-w` it, or choose another folder with WINOGRAPH_CACHE_DIR", path.display())
    };
    let whole = dir.canonicalize().map_err(|e| format!("{} cannot be looked at: {e}", dir.display()))?;
    // SAFETY: it has no preconditions and cannot fail.
    let me = unsafe { libc::geteuid() };
    for (depth, path) in whole.ancestors().enumerate() {
        let found = path.metadata().map_err(|e| format!("{} cannot be looked at: {e}", path.display()))?;
        if found.uid() != me && found.uid() != 0 {
            return Err(refused(path, "belongs to another user"));
        }
        // In a sticky folder, such as /tmp, only the owner of an entry may exchange it.
        let sticky = depth > 0 && found.mode() & 0o1000 != 0;
        if found.mode() & 0o022 != 0 && !sticky {
            return Err(refused(path, "can be written to by other users"));
        }
    }
    Ok(())
}

/// Elsewhere the system's defaults have to do.
#[cfg(not(unix))]
pub(crate) fn check_private(_dir: &Path) -> Result<(), String> {
    Ok(())
}

/// Notes that a file was used, so that it is not among the first to be removed.
pub(crate) fn mark_used(path: &Path) {
    let now = SystemTime::now();
    let marked = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if marked(path).is_some_and(|t| now.duration_since(t).is_ok_and(|age| age > MARK))
        && let Ok(file) = fs::OpenOptions::new().append(true).open(path)
    {
        let _ = file.set_modified(now);
    }
}

/// A file of the cache.
struct Found {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Removes what killed processes left and, where all files together have more than `most` bytes, those that were not
/// used for longest, until a quarter is free. Files of other names are left alone. Any number of processes may do this
/// at once: a file that is gone already is as good as removed, and who misses one compiles it again. `endings` are those of
/// the names of files that count.
pub(crate) fn prune(dir: &Path, most: u64, endings: &[&str]) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let now = SystemTime::now();
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(about) = entry.metadata() else { continue };
        let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(super::cache::TEMPORARY) {
            if now.duration_since(used).is_ok_and(|age| age > STALE) {
                let _ = if about.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            }
        } else if about.is_file() && endings.iter().any(|e| name.ends_with(e)) {
            files.push(Found { path, bytes: about.len(), used });
        }
    }
    let mut total: u64 = files.iter().map(|f| f.bytes).sum();
    if total <= most {
        return;
    }
    files.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.path.cmp(&b.path)));
    for file in files {
        if total <= most - most / 4 {
            return;
        }
        let _ = fs::remove_file(&file.path);
        total -= file.bytes;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(dir: &Path, name: &str, bytes: usize, age: u64) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, vec![0; bytes]).unwrap();
        let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, age| file(dir.path(), name, 1000, age);
        let (old, middle, new) = (at("a.so", 5000), at("b.so", 4000), at("c.so", 10));
        let (fresh, stale) = (at(".tmp-1-1.so", 10), at(".tmp-1-2.so", 9000));
        let left = dir.path().join(".tmp-1-3");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("kernels.so"), b"half").unwrap();
        fs::File::open(&left).unwrap().set_modified(SystemTime::now() - Duration::from_secs(9000)).unwrap();
        let other = at("notes.txt", 90_000);
        prune(dir.path(), 3000, &[".so"]);
        assert!(old.exists() && middle.exists() && new.exists(), "within the limit");
        assert!(fresh.exists() && !stale.exists() && !left.exists(), "what a killed process left");
        mark_used(&old);
        prune(dir.path(), 2900, &[".so"]);
        assert!(old.exists() && !middle.exists() && new.exists() && other.exists());
    }

    #[test]
    fn folders_that_others_can_write_to_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (dir.path().join("outer"), dir.path().join("outer").join("inner"));
        create(&inner).unwrap();
        assert_eq!(inner.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(check_private(&inner), Ok(()));
        for (path, mode) in [(&inner, 0o770), (&inner, 0o707), (&inner, 0o1777), (&outer, 0o777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let e = check_private(&inner).unwrap_err();
            assert!(e.contains(&*path.canonicalize().unwrap().to_string_lossy()) && e.contains("chmod go-w"), "{e}");
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        fs::set_permissions(&outer, fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(check_private(&inner), Ok(()), "a sticky folder above");
        assert!(check_private(&dir.path().join("none")).is_err());
    }
}
