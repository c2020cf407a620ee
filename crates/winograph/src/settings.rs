//! What tensors are realized with unless a caller says otherwise: read from the environment once.

use crate::cpu::{CpuDevice, CpuOptions};
use crate::device::Device;
use crate::env::Env;
use crate::error::{Error, Result};
use std::sync::{Arc, OnceLock};
use winograph_compiler::{Algorithm, Options};

/// Defaults of this process.
#[derive(Clone)]
pub struct Settings {
    /// Where kernels run.
    pub device: Arc<dyn Device>,
    /// How graphs are compiled.
    pub options: Options,
    /// Whether [`conv`](crate::Tensor::conv) writes itself in its tensor-level Winograd form.
    pub tensor_level: bool,
    /// How much is printed to stderr: 2 shows kernels with their times, 4 their source.
    pub debug: u32,
}

impl Settings {
    /// The settings that an environment asks for, with a CPU device of its own.
    ///
    /// # Errors
    /// A thread pool that cannot be started.
    pub fn from_env(env: &Env) -> Result<Settings> {
        let device = CpuDevice::new(CpuOptions::from_env(env))
            .map_err(|e| Error::Execution { op: "device", cause: Box::new(e) })?;
        let algorithm = match (env.wino_old, env.wino) {
            (true, _) | (_, Some(false)) => Algorithm::Direct,
            (_, Some(true)) => Algorithm::Winograd,
            (_, None) => Algorithm::Auto,
        };
        Ok(Settings {
            device: Arc::new(device),
            options: Options { algorithm, ..Options::default() },
            tensor_level: env.wino_old,
            debug: env.debug,
        })
    }
}

/// The settings of this process, made from the environment when they are first needed.
///
/// # Errors
/// An environment variable with a value it cannot have, a thread pool that cannot be started.
pub fn settings() -> Result<&'static Settings> {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    if let Some(s) = SETTINGS.get() {
        return Ok(s);
    }
    let made = Settings::from_env(env()?)?;
    Ok(SETTINGS.get_or_init(|| made))
}

/// The environment of this process, read when it is first needed. Unlike [`settings`] it opens no device.
///
/// # Errors
/// A variable with a value it cannot have.
pub fn env() -> Result<&'static Env> {
    static ENV: OnceLock<Env> = OnceLock::new();
    if let Some(e) = ENV.get() {
        return Ok(e);
    }
    let read = Env::read().map_err(|e| Error::Execution { op: "environment", cause: Box::new(e) })?;
    Ok(ENV.get_or_init(|| read))
}
