//! Environment variables: the one place that reads them.
//!
//! The command and [`settings`](crate::settings::settings), which tensors are realized with by default, read an [`Env`]
//! once; from there on its fields are options like any others.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the environment asks for. A variable that is unset or empty is `None`, `false` or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// `WINOGRAPH_CC`: the C compiler, a path or a name, with arguments of its own if need be.
    pub cc: Option<OsString>,
    /// `WINOGRAPH_CACHE_DIR`: folder of the kernel cache.
    pub cache_dir: Option<PathBuf>,
    /// `WINOGRAPH_CACHE`: `0` switches the kernel cache off, `1` on (the default).
    pub cache: Option<bool>,
    /// `WINOGRAPH_CACHE_MB`: most megabytes (of 2^20 bytes) that the kernel cache has, here in bytes.
    pub cache_bytes: Option<u64>,
    /// `WINOGRAPH_MEMORY_MB`: most megabytes (of 2^20 bytes) that the results and intermediates of one run on the host, or one
    /// value of a model, may take, here in bytes; without it what the machine has.
    pub memory_bytes: Option<u64>,
    /// `WINOGRAPH_PLANS`: `0` has plans that searches have stored neither used nor stored, `1` both (the default).
    pub plans: Option<bool>,
    /// `WINOGRAPH_THREADS`: number of threads, at least 1.
    pub threads: Option<usize>,
    /// `WINOGRAPH_VECTOR_BYTES`: bytes of the widest vectors that kernels for the CPU may use: 16 (on x86 SSE, which
    /// has no fused multiply-adds), 32 (AVX2) or 64 (AVX-512).
    pub vector_bytes: Option<usize>,
    /// `WINOGRAPH_NVRTC`: NVRTC's library, or the folder it is in.
    pub nvrtc: Option<PathBuf>,
    /// `WINO`: `1` asks for graph-level Winograd, `0` for the direct sum; unset leaves it to the cost model.
    pub wino: Option<bool>,
    /// `WINO_OLD`: `1` asks for tensor-level Winograd.
    pub wino_old: bool,
    /// `DEBUG`: 2 shows kernels with their times, 4 their source.
    pub debug: u32,
    /// `XDG_CACHE_HOME`: the user's cache folder, if absolute.
    pub xdg_cache_home: Option<PathBuf>,
    /// `HOME`: the user's home folder.
    pub home: Option<PathBuf>,
    /// `PATH`: where programs are looked for.
    pub path: Option<OsString>,
    /// `TMPDIR`, or `/tmp`: folder for temporary files.
    pub temp_dir: PathBuf,
}

/// A variable that has a value it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name} is {value:?}, expected {expected}")]
pub struct EnvError {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub expected: &'static str,
}

impl Env {
    /// Reads the variables of this process.
    pub fn read() -> Result<Env, EnvError> {
        Env::from_lookup(&|name| std::env::var_os(name))
    }

    /// Reads variables by a function, for tests and other sources.
    ///
    /// ```
    /// use winograph::env::Env;
    /// let env = Env::from_lookup(&|name| (name == "DEBUG").then(|| "2".into())).unwrap();
    /// assert_eq!(env.debug, 2);
    /// assert!(Env::from_lookup(&|name| (name == "WINO").then(|| "yes".into())).is_err());
    /// ```
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Env, EnvError> {
        let get = |name: &str| lookup(name).filter(|v| !v.is_empty());
        let number = |name: &'static str, expected: &'static str, least: u64, greatest: u64| match get(name) {
            None => Ok(None),
            Some(v) => {
                let parsed = v.to_str().and_then(|s| s.trim().parse::<u64>().ok());
                match parsed.filter(|x| (least..=greatest).contains(x)) {
                    Some(x) => Ok(Some(x)),
                    None => Err(EnvError { name, value: v.to_string_lossy().into_owned(), expected }),
                }
            }
        };
        let switch = |name| number(name, "0 or 1", 0, 1).map(|x| x.map(|x| x == 1));
        Ok(Env {
            cc: get("WINOGRAPH_CC"),
            cache_dir: get("WINOGRAPH_CACHE_DIR").map(PathBuf::from),
            cache: switch("WINOGRAPH_CACHE")?,
            cache_bytes: number("WINOGRAPH_CACHE_MB", "a number of megabytes from 1 to 1048576", 1, 1 << 20)?
                .map(|mb| mb << 20),
            memory_bytes: number("WINOGRAPH_MEMORY_MB", "a number of megabytes from 64 to 2^40", 64, 1 << 40)?
                .map(|mb| mb << 20),
            plans: switch("WINOGRAPH_PLANS")?,
            threads: number("WINOGRAPH_THREADS", "a number of threads from 1 to 4096", 1, 4096)?.map(|x| x as usize),
            vector_bytes: match get("WINOGRAPH_VECTOR_BYTES") {
                None => None,
                Some(v) => match v.to_str().map(str::trim) {
                    Some("16") => Some(16),
                    Some("32") => Some(32),
                    Some("64") => Some(64),
                    _ => {
                        let value = v.to_string_lossy().into_owned();
                        return Err(EnvError { name: "WINOGRAPH_VECTOR_BYTES", value, expected: "16, 32 or 64" });
                    }
                },
            },
            nvrtc: get("WINOGRAPH_NVRTC").map(PathBuf::from),
            wino: switch("WINO")?,
            wino_old: switch("WINO_OLD")?.unwrap_or(false),
            debug: number("DEBUG", "a level from 0 to 9", 0, 9)?.unwrap_or(0) as u32,
            // The XDG base directory specification has relative paths ignored.
            xdg_cache_home: get("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()),
            home: get("HOME").map(PathBuf::from),
            path: get("PATH"),
            temp_dir: get("TMPDIR").map(PathBuf::from).unwrap_or_else(|| PathBuf::from("/tmp")),
        })
    }

    /// The folder of the kernel cache: `WINOGRAPH_CACHE_DIR`, else `winograph` in the user's cache folder; `None`
    /// where it is switched off or there is no such folder.
    pub fn kernel_cache(&self) -> Option<PathBuf> {
        if self.cache == Some(false) {
            return None;
        }
        self.cache_dir
            .clone()
            .or_else(|| self.xdg_cache_home.as_ref().map(|p| p.join("winograph")))
            .or_else(|| self.home.as_ref().map(|p| p.join(".cache").join("winograph")))
    }

    /// The folder of stored plans: `plans` in that of the kernel cache; `None` where either is switched off.
    pub fn plans(&self) -> Option<PathBuf> {
        self.kernel_cache().filter(|_| self.plans != Some(false)).map(|p| p.join("plans"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Result<Env, EnvError> {
        Env::from_lookup(&|name| vars.iter().find(|v| v.0 == name).map(|v| v.1.into()))
    }

    #[test]
    fn the_cache_is_in_the_first_folder_there_is() {
        fn dir(vars: &[(&str, &str)]) -> Option<PathBuf> {
            env(vars).unwrap().kernel_cache()
        }
        let (own, xdg, home) = (("WINOGRAPH_CACHE_DIR", "/c"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(dir(&[own, xdg, home]), Some("/c".into()));
        assert_eq!(dir(&[xdg, home]), Some("/x/winograph".into()));
        assert_eq!(dir(&[home]), Some("/h/.cache/winograph".into()));
        assert_eq!(dir(&[("XDG_CACHE_HOME", "relative"), home]), Some("/h/.cache/winograph".into()));
        assert_eq!(dir(&[]), None);
        assert_eq!(dir(&[own, ("WINOGRAPH_CACHE", "0")]), None);
        let plans = |vars: &[(&str, &str)]| env(vars).unwrap().plans();
        assert_eq!(plans(&[own, home]), Some("/c/plans".into()));
        assert_eq!(plans(&[own, ("WINOGRAPH_PLANS", "0")]), None);
        assert_eq!(plans(&[own, ("WINOGRAPH_CACHE", "0")]), None);
    }

    #[test]
    fn values_that_cannot_be_are_errors() {
        for (name, value) in
            [("WINO", "2"), ("WINO_OLD", "x"), ("DEBUG", "-1"), ("WINOGRAPH_THREADS", "0"), ("WINOGRAPH_CACHE", "no")]
                .into_iter()
                .chain([("WINOGRAPH_VECTOR_BYTES", "48"), ("WINOGRAPH_VECTOR_BYTES", "avx2")])
        {
            let e = env(&[(name, value)]).unwrap_err();
            assert_eq!((e.name, e.value.as_str()), (name, value));
        }
        let e = env(&[("WINO", "0"), ("WINO_OLD", ""), ("DEBUG", " 4"), ("WINOGRAPH_THREADS", "3")]).unwrap();
        assert_eq!((e.wino, e.wino_old, e.debug, e.threads), (Some(false), false, 4, Some(3)));
    }
}
