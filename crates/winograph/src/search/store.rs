//! What searches have found, on disk, beside the compiled kernels.
//!
//! A sum of products has up to two entries in the folder: its tile, which holds for any number of threads, since that
//! number changes no result; and its schedule with that tile on so many threads. An entry `<key>.plan` holds a hash of its
//! key and its text: one that was damaged, or that lies under another name, is not used. It is written to a file without a
//! name, or a temporary one, and renamed. What it says is checked as any plan is: nothing in it can make a kernel that is
//! not proved in bounds, or a tile that the tolerance does not admit.

use crate::cpu::folder;
use crate::files::write_atomically;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use winograph_compiler::Target;
use winograph_compiler::tune::tuning::MOST_TEXT;
use winograph_compiler::tune::{Problem, Tuning};
use winograph_ir::rule::AxisTile;

/// First line of every entry, and part of every key: changes with the meaning of what is stored.
const FORMAT: &str = "winograph plans 1\n";

/// Bytes that the entries of a folder have at most together.
pub const PLAN_BYTES: u64 = 16 << 20;

/// How names of entries end.
const SUFFIX: &str = ".plan";

/// Stored plans.
#[derive(Clone, Debug, Default)]
pub struct PlanStore {
    dir: Option<PathBuf>,
}

/// Why a plan cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no folder for plans.
    #[error(
        "no folder for plans: WINOGRAPH_CACHE_DIR names one; WINOGRAPH_CACHE=0 and WINOGRAPH_PLANS=0 switch it off"
    )]
    NoFolder,
    /// The folder cannot be used.
    #[error("plans are not kept: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}; WINOGRAPH_CACHE_DIR names another folder")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl PlanStore {
    /// The plans of a folder; `None` keeps none.
    pub fn new(dir: Option<PathBuf>) -> PlanStore {
        PlanStore { dir }
    }

    /// The folder.
    pub fn folder(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Whether the folder is there: until something was stored, it is not.
    pub(crate) fn is_there(&self) -> bool {
        self.dir.as_deref().is_some_and(Path::is_dir)
    }

    /// A hash of all that is stored.
    pub(crate) fn state(&self) -> String {
        let files = self.dir.as_deref().and_then(|d| fs::read_dir(d).ok());
        let names = files.into_iter().flatten().flatten().filter_map(|f| f.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(SUFFIX)).collect();
        names.sort();
        let mut hasher = blake3::Hasher::new();
        for (dir, name) in names.iter().filter_map(|name| Some((self.dir.as_deref()?, name))) {
            hasher.update(name.as_bytes());
            // What is longer is no plan and is not used.
            let text = File::open(dir.join(name)).map(|f| f.take((MOST_TEXT + 1024) as u64));
            let _ = text.and_then(|text| hasher.update_reader(text).map(|_| ()));
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What is stored for a problem on a target; an error says why what is there is not used.
    pub fn find(&self, problem: &Problem, target: &Target) -> Option<Result<Tuning, String>> {
        let dir = self.dir.as_deref().filter(|d| d.is_dir())?;
        if let Err(why) = folder::check_private(dir) {
            return Some(Err(why));
        }
        let tile = match read(dir, &tile_key(problem, target)) {
            None => None,
            Some(Ok(found)) => found.tile,
            Some(Err(why)) => return Some(Err(why)),
        };
        match read(dir, &schedule_key(problem, target, tile.as_deref())) {
            None => tile.map(|tile| Ok(Tuning { tile: Some(tile), ..Tuning::default() })),
            Some(found) => Some(found.map(|schedule| Tuning { tile, ..schedule })),
        }
    }

    /// Stores a tuning; what it leaves open is left to heuristics. Gives the files that hold it now.
    ///
    /// # Errors
    /// No folder, one that others can write to, or files that cannot be written.
    pub fn store(&self, problem: &Problem, target: &Target, tuning: &Tuning) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.dir.as_deref().ok_or(StoreError::NoFolder)?;
        folder::create(dir).map_err(|source| StoreError::Write { path: dir.to_path_buf(), source })?;
        folder::check_private(dir).map_err(|reason| StoreError::Refused { reason })?;
        let tile = Tuning { tile: tuning.tile.clone(), ..Tuning::default() };
        let schedule = Tuning { tile: None, ..tuning.clone() };
        let mut written = Vec::new();
        // The schedule first: until the tile is there, nobody looks for it.
        let keys = [schedule_key(problem, target, tuning.tile.as_deref()), tile_key(problem, target)];
        for (key, part) in keys.iter().zip([schedule, tile]) {
            let path = path(dir, key);
            if part.is_empty() {
                remove(&path)?;
                continue;
            }
            let text = part.to_string();
            let bytes = format!("{FORMAT}{}\n{text}", folder::key(&[key, &text]));
            write_atomically(&path, bytes.as_bytes())
                .map_err(|source| StoreError::Write { path: path.clone(), source })?;
            written.push(path);
        }
        folder::prune(dir, PLAN_BYTES, &[SUFFIX]);
        Ok(written)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Write { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

fn path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!("{key}{SUFFIX}"))
}

/// Of the tile, on any number of threads.
fn tile_key(problem: &Problem, target: &Target) -> String {
    let target = Target { threads: 0, ..target.clone() };
    folder::key(&[FORMAT, "tile", &problem.key(), &format!("{target:?}")])
}

fn schedule_key(problem: &Problem, target: &Target, tile: Option<&[AxisTile]>) -> String {
    folder::key(&[FORMAT, "schedule", &problem.key(), &format!("{target:?}"), &format!("{tile:?}")])
}

/// An entry, if there is one.
fn read(dir: &Path, key: &str) -> Option<Result<Tuning, String>> {
    let path = path(dir, key);
    let about = fs::metadata(&path).ok()?;
    let bad = |what: &str| Some(Err(format!("{} {what}: it is ignored; search again, or remove it", path.display())));
    if !about.is_file() || about.len() > (MOST_TEXT + 1024) as u64 {
        return bad("is no plan");
    }
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Another process may have removed it meanwhile.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => return bad(&format!("cannot be read ({e})")),
    };
    let Some((sum, text)) = text.strip_prefix(FORMAT).and_then(|t| t.split_once('\n')) else {
        return bad("is no plan of this version");
    };
    if folder::key(&[key, text]) != sum {
        return bad("is damaged");
    }
    folder::mark_used(&path);
    match Tuning::parse(text) {
        Ok(tuning) => Some(Ok(tuning)),
        Err(e) => bad(&format!("cannot be read ({e})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(sum: &str) -> Problem {
        Problem { sum: sum.to_string(), options: "none".to_string() }
    }

    fn store() -> (tempfile::TempDir, PlanStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = PlanStore::new(Some(dir.path().join("plans")));
        (dir, store)
    }

    const TUNING: &str = "tile=4,2\nstages=scratch block=1,2,14 columns=32 parts=1\nregisters=2x14\n";

    #[test]
    fn what_is_stored_is_found_by_problem_and_target() {
        let (_dir, store) = store();
        let (here, tuning) = (Target::cpu(64), Tuning::parse(TUNING).unwrap());
        assert_eq!(store.find(&problem("a"), &here), None);
        assert_eq!(store.store(&problem("a"), &here, &tuning).unwrap().len(), 2);
        assert_eq!(store.find(&problem("a"), &here), Some(Ok(tuning.clone())));
        assert_eq!(store.find(&problem("b"), &here), None);
        assert_eq!(store.find(&problem("a"), &Target::cpu(32)), None);
        // Another number of threads has the same tile, since it decides what is computed.
        let threads = Target { threads: 7, ..here.clone() };
        let tile = Tuning { tile: tuning.tile.clone(), ..Tuning::default() };
        assert_eq!(store.find(&problem("a"), &threads), Some(Ok(tile.clone())));
        // A search with other threads that finds another tile changes it for all, and leaves no schedule of the other.
        let other = Tuning { tile: Some(vec![2.into(), 2.into()]), ..Tuning::default() };
        store.store(&problem("a"), &threads, &other).unwrap();
        assert_eq!(store.find(&problem("a"), &here), Some(Ok(other)));
        store.store(&problem("a"), &here, &Tuning::default()).unwrap();
        assert_eq!(store.find(&problem("a"), &here), None);
    }

    #[test]
    fn damaged_entries_are_noticed() {
        let (dir, store) = store();
        let (here, tuning) = (Target::cpu(64), Tuning::parse(TUNING).unwrap());
        let files = store.store(&problem("a"), &here, &tuning).unwrap();
        for file in &files {
            let whole = fs::read(file).unwrap();
            let mut flipped = whole.clone();
            *flipped.last_mut().unwrap() ^= 1;
            let long = vec![b'\n'; MOST_TEXT + 2048];
            for bad in [&flipped[..], &whole[..whole.len() - 1], b"", b"winograph plans 0\n", &long, &[0xff; 90]] {
                fs::write(file, bad).unwrap();
                let why = store.find(&problem("a"), &here).unwrap().unwrap_err();
                assert!(why.contains("it is ignored"), "{why}");
            }
            fs::write(file, &whole).unwrap();
        }
        // An entry under another's name.
        let [schedule, tile] = &files[..] else { panic!("{files:?}") };
        fs::copy(schedule, tile).unwrap();
        assert!(store.find(&problem("a"), &here).unwrap().unwrap_err().contains("is damaged"));
        assert_eq!(fs::read_dir(dir.path().join("plans")).unwrap().count(), 2, "nothing else is left");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_of_others_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, store) = store();
        let (here, tuning) = (Target::cpu(64), Tuning::parse(TUNING).unwrap());
        store.store(&problem("a"), &here, &tuning).unwrap();
        fs::set_permissions(dir.path().join("plans"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(store.find(&problem("a"), &here).unwrap().is_err());
        assert!(matches!(store.store(&problem("a"), &here, &tuning), Err(StoreError::Refused { .. })));
        assert!(matches!(PlanStore::new(None).store(&problem("a"), &here, &tuning), Err(StoreError::NoFolder)));
        // A name that is no folder, as a home that cannot be written.
        let none = PlanStore::new(Some(PathBuf::from("/proc/none/plans")));
        assert_eq!(none.find(&problem("a"), &here), None);
        assert!(matches!(none.store(&problem("a"), &here, &tuning), Err(StoreError::Write { .. })));
    }
}
