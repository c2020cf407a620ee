//! Compiled kernels on disk.
//!
//! An *entry* `<key>.entry` names a library `<hash of its content>.so`; both are written to a temporary file of the
//! same folder and renamed, so that nobody sees half of one. A library whose content does not have the hash that its
//! entry gives (truncated, damaged) is compiled again. Any number of processes may share a folder; nothing is locked,
//! and two that compile the same kernel at the same time both succeed.
//!
//! A folder that cannot be written costs the reuse and nothing else: libraries are then made in the folder for
//! temporary files and removed as soon as they are loaded.

use super::compiler::Compiler;
use super::module::Loaded;
use crate::device::DeviceError;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Part of every key: changes with the meaning of what is stored.
const FORMAT: &str = "winograph kernels 1\n";

/// Where compiled kernels are kept.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: Option<PathBuf>,
    temp: PathBuf,
}

/// Where a library came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It was in the cache.
    Cached,
    /// It was compiled and stored.
    Stored,
    /// It was compiled and could not be stored, or was not to be.
    Compiled,
}

impl Cache {
    /// A cache in `dir`, or none; `temp` is the folder for libraries that are not kept.
    pub fn new(dir: Option<PathBuf>, temp: PathBuf) -> Cache {
        Cache { dir, temp }
    }

    /// The library of a source: from the cache, or compiled. `machine` says what compiled code depends on.
    pub fn load(&self, source: &str, compiler: &Compiler, machine: &str) -> Result<(Loaded, Fetched), DeviceError> {
        let key = key(source, compiler, machine);
        if let Some(dir) = &self.dir {
            if let Some(path) = lookup(dir, &key)
                && let Ok(loaded) = Loaded::open(&path)
            {
                return Ok((loaded, Fetched::Cached));
            }
            if fs::create_dir_all(dir).is_ok()
                && let Some(temp) = TempFile::new(dir)
            {
                compiler.compile(source, temp.path())?;
                if let Some(path) = store(dir, &key, &temp)
                    && let Ok(loaded) = Loaded::open(&path)
                {
                    return Ok((loaded, Fetched::Stored));
                }
                return Ok((Loaded::open(temp.path())?, Fetched::Compiled));
            }
        }
        let temp = TempFile::new(&self.temp).ok_or_else(|| DeviceError::File {
            action: "create a file in",
            path: self.temp.clone(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        })?;
        compiler.compile(source, temp.path())?;
        Ok((Loaded::open(temp.path())?, Fetched::Compiled))
    }
}

fn key(source: &str, compiler: &Compiler, machine: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [FORMAT, &compiler.identity(), machine, source] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn entry_path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!("{key}.entry"))
}

fn library_path(dir: &Path, content: &str) -> PathBuf {
    dir.join(format!("{content}.so"))
}

/// The library that an entry names, if it is whole.
fn lookup(dir: &Path, key: &str) -> Option<PathBuf> {
    let entry = fs::read_to_string(entry_path(dir, key)).ok()?;
    let content = entry.strip_prefix(FORMAT)?.trim_end();
    if content.len() != 64 || !content.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let path = library_path(dir, content);
    let bytes = fs::read(&path).ok()?;
    (blake3::hash(&bytes).to_hex().as_str() == content).then_some(path)
}

/// Moves a compiled library into place and enters it; `None` where that fails.
fn store(dir: &Path, key: &str, library: &TempFile) -> Option<PathBuf> {
    let content = blake3::hash(&fs::read(library.path()).ok()?).to_hex().to_string();
    let path = library_path(dir, &content);
    fs::rename(library.path(), &path).ok()?;
    let entry = TempFile::new(dir)?;
    // An entry that fails to be written costs its reuse alone: the library is there and right.
    let _ = fs::write(entry.path(), format!("{FORMAT}{content}\n"))
        .and_then(|()| fs::rename(entry.path(), entry_path(dir, key)));
    Some(path)
}

/// A file of a name of its own that is removed when dropped, if it is still there.
struct TempFile(PathBuf);

impl TempFile {
    /// An empty file in `dir`; `None` where none can be created.
    fn new(dir: &Path) -> Option<TempFile> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        // Another process may have had this number, or share the folder from another machine.
        for _ in 0..1000 {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!(".tmp-{}-{n}.so", std::process::id()));
            match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return Some(TempFile(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(_) => return None,
            }
        }
        None
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
