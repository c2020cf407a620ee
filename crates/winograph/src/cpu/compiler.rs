//! The system's C compiler.

use super::machine;
use crate::device::DeviceError;
use crate::temporary::start;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

/// Names tried in turn where none is asked for.
const CANDIDATES: [&str; 3] = ["clang", "cc", "gcc"];

/// All instructions that this machine has; clang for ARM knows the flag under the other name alone.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "-mcpu=native" } else { "-march=native" };

/// Flags of every compilation. Floating point is exact: no contraction, no fast-math; neither `errno` nor the
/// exception flags are ever looked at. `-fno-strict-aliasing`, since an arena holds all dtypes in turn.
const FLAGS: [&str; 12] = [
    "-std=gnu11",
    "-O2",
    NATIVE,
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
    "-fno-stack-protector",
    "-fPIC",
    "-shared",
    "-w",
    "-pipe",
];

/// A C compiler that was found on this machine.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    args: Vec<OsString>,
    /// Which build of the compiler the file is.
    build: String,
    version: OnceLock<String>,
}

impl Compiler {
    /// Finds a compiler: `cc` if given (a path or a name, arguments may follow), else the first of clang, cc and gcc
    /// on `path`, a list of folders like the variable `PATH`. `vector_bytes` is the width that code will use.
    pub fn find(cc: Option<&OsStr>, path: Option<&OsStr>, vector_bytes: usize) -> Result<Compiler, DeviceError> {
        let (program, own_args) = match cc {
            Some(cc) => {
                let (name, args) = split_command(cc);
                let found = search(&name, path)
                    .ok_or_else(|| DeviceError::NoCompiler { tried: name.to_string_lossy().into_owned() })?;
                (found, args)
            }
            None => {
                let found = CANDIDATES.iter().find_map(|name| search(OsStr::new(name), path));
                (found.ok_or_else(|| DeviceError::NoCompiler { tried: CANDIDATES.join(", ") })?, Vec::new())
            }
        };
        let mut args: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
        if cfg!(target_arch = "x86_64") && vector_bytes == 64 {
            // Tunings for some processors prefer to split vectors that are written in full width.
            args.push("-mprefer-vector-width=512".into());
        }
        // Narrower vectors than the machine's: what code for a machine without the wider ones would be.
        if machine::is_sse(vector_bytes) {
            args.push("-mno-avx".into());
        } else if cfg!(target_arch = "x86_64") && vector_bytes < machine::vector_bytes() {
            args.push("-mno-avx512f".into());
        }
        // Last, so that they prevail.
        args.extend(own_args);
        Ok(Compiler { build: build(&program), program, args, version: OnceLock::new() })
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// All that its output depends on beside the source, as text. The compiler's version is told by its file, since
    /// clang alone takes longer to print it than a kernel takes to load.
    pub fn identity(&self) -> String {
        let args: Vec<_> = self.args.iter().map(|a| a.to_string_lossy()).collect();
        format!("{}\n{}\n{}\n", self.program.display(), self.build, args.join("\n"))
    }

    /// What it prints for `--version`; asked for once.
    pub fn version(&self) -> Result<&str, DeviceError> {
        if let Some(v) = self.version.get() {
            return Ok(v);
        }
        let mut command = Command::new(&self.program);
        command.arg("--version").env("LC_ALL", "C").stdin(Stdio::null());
        let text = describe(&command);
        let output = command.output();
        let output = output.map_err(|source| DeviceError::CompilerStart { command: text.clone(), source })?;
        if !output.status.success() {
            return Err(refused(text, output.status, &[output.stderr, output.stdout].concat()));
        }
        let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
        Ok(self.version.get_or_init(|| text))
    }

    /// Compiles C source into a shared library at `out`, with the compiler's temporary files beside it.
    pub fn compile(&self, source: &str, out: &Path) -> Result<(), DeviceError> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg("-x").arg("c").arg("-").arg("-o").arg(out).arg("-lm");
        if let Some(folder) = out.parent().filter(|p| !p.as_os_str().is_empty()) {
            command.envs(["TMPDIR", "TMP", "TEMP"].map(|name| (name, folder)));
        }
        let text = describe(&command);
        let failed = |source| DeviceError::CompilerStart { command: text.clone(), source };
        // One pipe for all that it prints: its end says that it is over with the processes that it has started.
        let (mut printed, pipe) = std::io::pipe().map_err(failed)?;
        command.stdout(pipe.try_clone().map_err(failed)?).stderr(pipe);
        let mut compiling = start(command.env("LC_ALL", "C").stdin(Stdio::piped())).map_err(failed)?;
        // Its ends of the pipe.
        drop(command);
        let mut stdin = compiling.child.stdin.take();
        // A compiler that fails early closes its input: its message says more than the broken pipe does. It prints
        // little before it has read everything, so that writing all of it first does not block.
        let written = stdin.as_mut().map_or(Ok(()), |pipe| pipe.write_all(source.as_bytes()));
        drop(stdin);
        let mut output = Vec::new();
        printed.read_to_end(&mut output).map_err(failed)?;
        let status = compiling.wait().map_err(failed)?;
        if !status.success() {
            return Err(refused(text, status, &output));
        }
        written.map_err(failed)
    }
}

/// The file behind a program's path, with its size and time of change.
fn build(program: &Path) -> String {
    let file = program.canonicalize().unwrap_or_else(|_| program.to_path_buf());
    let (size, changed) = match file.metadata() {
        Ok(m) => (m.len(), m.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok())),
        Err(_) => (0, None),
    };
    format!("{} {size} {}", file.display(), changed.map_or(0, |t| t.as_nanos()))
}

fn refused(command: String, status: ExitStatus, printed: &[u8]) -> DeviceError {
    let output = String::from_utf8_lossy(printed).trim_end().to_string();
    DeviceError::CompilerFailed { command, status: status.to_string(), output }
}

fn describe(command: &Command) -> String {
    let mut out = command.get_program().to_string_lossy().into_owned();
    for a in command.get_args() {
        let _ = write!(out, " {}", a.to_string_lossy());
    }
    out
}

/// Splits a command into program and arguments at spaces, unless it is the path of a file as it stands.
fn split_command(cc: &OsStr) -> (OsString, Vec<OsString>) {
    let text = match cc.to_str() {
        Some(text) if !Path::new(cc).is_file() => text,
        _ => return (cc.to_os_string(), Vec::new()),
    };
    let mut words = text.split_whitespace().map(OsString::from);
    (words.next().unwrap_or_default(), words.collect())
}

/// The executable file of a name: itself if it has a folder, else the first on the path.
fn search(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let name = Path::new(name);
    if name.as_os_str().is_empty() {
        return None;
    }
    if name.components().count() > 1 {
        return is_executable(name).then(|| name.to_path_buf());
    }
    std::env::split_paths(path?).map(|dir| dir.join(name)).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    }
    #[cfg(not(unix))]
    {
        path.is_file()
    }
}
