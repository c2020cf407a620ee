//! Compiled kernels on disk.
//!
//! An *entry* `<key>.entry` names a library `<hash of its content>.so`; both are made in temporary places of the same
//! folder and renamed, so that nobody sees half of one; compilers have their own temporary files there as well. A library whose content does not have the hash that its
//! entry gives (truncated, damaged) is compiled again. `<key>.program` is a program that was compiled of such libraries, which
//! begins with a hash of what follows: see [`kept`](crate::kept). Any number of processes may share a folder; nothing is locked,
//! and two that compile the same kernel at the same time both succeed.
//!
//! A folder that cannot be written, or that is full, costs the reuse and nothing else: libraries are then made in a
//! folder of their own among the temporary files and removed as soon as they are loaded. The same goes for a folder
//! that others can write to, since what is in it is loaded into this process.

use super::compiler::Compiler;
use super::folder;
use super::module::Loaded;
use crate::device::DeviceError;
use crate::temporary::{Temporary, rename};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Part of every key: changes with the meaning of what is stored.
const FORMAT: &str = "winograph kernels 1\n";

/// How names of temporary files begin.
pub(super) const TEMPORARY: &str = ".tmp-";

/// How names of the files of a cache end.
const ENDINGS: [&str; 3] = [".so", ".entry", ".program"];

/// Bytes that the files of a cache have at most, unless asked otherwise.
pub const CACHE_BYTES: u64 = 1 << 30;

/// Libraries that are stored between two looks at how large the folder is.
const STORES: u64 = 64;

/// Where compiled kernels are kept.
#[derive(Debug)]
pub struct Cache {
    dir: Option<PathBuf>,
    temp: PathBuf,
    most_bytes: u64,
    stores: AtomicU64,
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
    /// A cache in `dir`, or none, of at most about `most_bytes` bytes; `temp` is the folder for libraries that are not
    /// kept.
    pub fn new(dir: Option<PathBuf>, temp: PathBuf, most_bytes: u64) -> Cache {
        Cache { dir, temp, most_bytes, stores: AtomicU64::new(0) }
    }

    /// The folder where kernels are kept, made if need be; `None` if none was asked for.
    ///
    /// # Errors
    /// Why none are kept: a folder that cannot be made, or that others can write to.
    pub fn folder(&self) -> Result<Option<&Path>, String> {
        let Some(dir) = &self.dir else { return Ok(None) };
        folder::create(dir).map_err(|e| format!("{} cannot be made: {e}", dir.display()))?;
        folder::check_private(dir)?;
        Ok(Some(dir))
    }

    /// The library of a source: from the cache, or compiled. `machine` says what compiled code depends on.
    pub fn load(&self, source: &str, compiler: &Compiler, machine: &str) -> Result<(Loaded, Fetched), DeviceError> {
        self.load_named(&key(source, compiler, machine), source, compiler)
    }

    /// The library of a name, if it is there.
    pub(super) fn find(&self, key: &str) -> Option<Loaded> {
        let (path, _) = lookup(self.folder().ok()??, key)?;
        let loaded = Loaded::open(&path).ok()?;
        folder::mark_used(&path);
        Some(loaded)
    }

    /// As [`load`](Cache::load), of a source whose [`key`] is known.
    pub(super) fn load_named(
        &self,
        key: &str,
        source: &str,
        compiler: &Compiler,
    ) -> Result<(Loaded, Fetched), DeviceError> {
        if let Ok(Some(dir)) = self.folder() {
            if let Some(loaded) = self.find(key) {
                return Ok((loaded, Fetched::Cached));
            }
            // Where this fails for want of room, the folder for temporary files may still have some; a source that the
            // compiler refuses it refuses again, with its message.
            if let Ok((temp, bytes)) = compiled(dir, source, compiler) {
                // Loaded before it is moved: whoever removes the file then does no harm.
                let library = library_in(&temp);
                let loaded = Loaded::open(&library);
                if let Some(path) = store(dir, key, &library, &bytes) {
                    self.stored(dir);
                    if let Ok(loaded) = loaded.or_else(|_| Loaded::open(&path)) {
                        return Ok((loaded, Fetched::Stored));
                    }
                } else if let Ok(loaded) = loaded {
                    return Ok((loaded, Fetched::Compiled));
                }
            }
        }
        let (temp, _) = compiled(&self.temp, source, compiler)?;
        Ok((Loaded::open(&library_in(&temp))?, Fetched::Compiled))
    }

    /// The bytes of the library of a source, with the arguments of [`load`](Cache::load).
    pub(super) fn bytes(&self, source: &str, compiler: &Compiler, machine: &str) -> Result<Vec<u8>, DeviceError> {
        if let Ok(Some(dir)) = self.folder()
            && let Some((_, bytes)) = lookup(dir, &key(source, compiler, machine))
        {
            return Ok(bytes);
        }
        Ok(compiled(&self.temp, source, compiler)?.1)
    }

    /// Loads a library that is in memory.
    pub(super) fn open(&self, library: &[u8]) -> Result<Loaded, DeviceError> {
        let temp = temporary_folder(&self.temp)?;
        let path = library_in(&temp);
        match fs::write(&path, library) {
            Ok(()) => Loaded::open(&path),
            Err(source) => Err(DeviceError::File { action: "write", path, source }),
        }
    }

    /// Bytes that are made of `parts` alone: from the cache, or made and stored.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn bytes_of<E>(
        &self,
        parts: &[&str],
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<(Vec<u8>, Fetched), E> {
        let Ok(Some(dir)) = self.folder() else { return Ok((make()?, Fetched::Compiled)) };
        let key = folder::key(&[&[FORMAT], parts].concat());
        if let Some((path, bytes)) = lookup(dir, &key) {
            folder::mark_used(&path);
            return Ok((bytes, Fetched::Cached));
        }
        let bytes = make()?;
        let stored = temporary_file(dir, &bytes).and_then(|temp| store(dir, &key, temp.path(), &bytes));
        if stored.is_none() {
            return Ok((bytes, Fetched::Compiled));
        }
        self.stored(dir);
        Ok((bytes, Fetched::Stored))
    }

    /// Something was stored: now and then that is an occasion to make room.
    fn stored(&self, dir: &Path) {
        if self.stores.fetch_add(1, Ordering::Relaxed).is_multiple_of(STORES) {
            folder::prune(dir, self.most_bytes, &ENDINGS);
        }
    }

    /// A program that is kept under a key, if it is whole.
    pub(super) fn program(&self, key: &str) -> Option<Vec<u8>> {
        let path = program_path(self.folder().ok()??, key);
        let mut bytes = fs::read(&path).ok()?;
        let text = bytes.split_off(bytes.iter().position(|&b| b == b'\n')? + 1);
        if bytes.trim_ascii_end() != blake3::hash(&text).to_hex().as_bytes() {
            return None;
        }
        folder::mark_used(&path);
        Some(text)
    }

    /// Keeps a program under a key: its hash in a line, then its text.
    pub(super) fn keep_program(&self, key: &str, text: &[u8]) {
        let Ok(Some(dir)) = self.folder() else { return };
        let bytes = [blake3::hash(text).to_hex().as_bytes(), b"\n", text].concat();
        let Some(temp) = temporary_file(dir, &bytes) else { return };
        if rename(&[(temp.path(), &program_path(dir, key))]).is_ok() {
            self.stored(dir);
        }
    }
}

/// What the library of a source is stored under.
pub(super) fn key(source: &str, compiler: &Compiler, machine: &str) -> String {
    folder::key(&[FORMAT, &compiler.identity(), machine, source])
}

fn entry_path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!("{key}.entry"))
}

fn library_path(dir: &Path, content: &str) -> PathBuf {
    dir.join(format!("{content}.so"))
}

fn program_path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!("{key}.program"))
}

/// The library that an entry names and its bytes, if it is whole.
fn lookup(dir: &Path, key: &str) -> Option<(PathBuf, Vec<u8>)> {
    let entry = fs::read_to_string(entry_path(dir, key)).ok()?;
    let content = entry.strip_prefix(FORMAT)?.trim_end();
    if content.len() != 64 || !content.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let path = library_path(dir, content);
    let bytes = fs::read(&path).ok()?;
    (blake3::hash(&bytes).to_hex().as_str() == content).then_some((path, bytes))
}

/// Moves a compiled library of these bytes into place and enters it; `None` where that fails.
fn store(dir: &Path, key: &str, library: &Path, bytes: &[u8]) -> Option<PathBuf> {
    let content = blake3::hash(bytes).to_hex().to_string();
    let (path, entered) = (library_path(dir, &content), entry_path(dir, key));
    // An entry that fails to be written costs its reuse alone: the library is there and right.
    let entry = temporary_file(dir, format!("{FORMAT}{content}\n").as_bytes());
    let mut moves = vec![(library, &*path)];
    moves.extend(entry.iter().map(|entry| (entry.path(), &*entered)));
    (rename(&moves).is_ok() || path.is_file()).then_some(path)
}

/// The library of a source, in a temporary folder of its own in `parent`, and its bytes.
fn compiled(parent: &Path, source: &str, compiler: &Compiler) -> Result<(Temporary, Vec<u8>), DeviceError> {
    let temp = temporary_folder(parent)?;
    let library = library_in(&temp);
    compiler.compile(source, &library)?;
    match fs::read(&library) {
        Ok(bytes) => Ok((temp, bytes)),
        Err(source) => Err(DeviceError::File { action: "read", path: library, source }),
    }
}

fn library_in(temp: &Temporary) -> PathBuf {
    temp.path().join("kernels.so")
}

/// A folder for this user alone.
fn temporary_folder(parent: &Path) -> Result<Temporary, DeviceError> {
    let made = Temporary::make(parent, (TEMPORARY, ""), folder::create_new);
    let failed = |source| DeviceError::File { action: "make a folder in", path: parent.to_path_buf(), source };
    Ok(made.map_err(failed)?.1)
}

/// A file of these bytes in `dir`; `None` where none can be created.
fn temporary_file(dir: &Path, bytes: &[u8]) -> Option<Temporary> {
    let create = |path: &Path| fs::OpenOptions::new().write(true).create_new(true).open(path);
    let (mut file, temp) = Temporary::make(dir, (TEMPORARY, ".so"), create).ok()?;
    file.write_all(bytes).ok()?;
    Some(temp)
}
