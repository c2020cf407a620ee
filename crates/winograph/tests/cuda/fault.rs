//! Kernels that fail. The driver refuses the context, and with it the whole process, from then on, so that each failure is in
//! a process of its own.

use super::{device, opened, threads, upload};
use std::process::Command;
use std::sync::Arc;
use winograph::cuda::CudaDevice;
use winograph::device::{Arg, Device, DeviceError, Module};
use winograph::{ArgSpec, DType, FunctionOptions, Tensor, compile_with};

/// How the kernel that fails is launched.
const HOW: &str = "WINOGRAPH_TEST_FAULT";

/// Runs when [`after_a_failure`] starts this program again as a process of its own.
#[test]
fn child_process() {
    let Ok(how) = std::env::var(HOW) else { return };
    let gpu: Arc<CudaDevice> = Arc::new(opened(0, None).unwrap());
    let same = Arc::new(opened(0, None).unwrap());
    let function = |device: Arc<dyn Device>| {
        let options = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
        compile_with(&[ArgSpec::new(DType::F32, &[3, 50])], &options, |x| Ok(vec![x[0].exp()?.sum(&[1], false)?]))
            .unwrap()
    };
    let x = Tensor::randn(&[3, 50], DType::F32, 1).unwrap();
    let f = function(gpu.clone());
    let unread = f.call(&[&x]).unwrap();
    let expected = f.call(&[&x]).unwrap()[0].to_vec::<f32>().unwrap();

    let case = &threads::threads()[0];
    let mut other = case.code.clone();
    other.name = "E_good".into();
    let module = gpu.load(&[case.code.clone(), other]).unwrap();
    let memory = [upload(&gpu, &case.inputs[0]), upload(&gpu, &case.before)];
    let good: Vec<Arg> = memory.iter().map(|m| m.arg(0, m.bytes()).unwrap()).collect();
    // Nothing is mapped there.
    let bad = [good[0], Arg { address: std::ptr::without_provenance_mut(0x10_0000), ..good[1] }];
    gpu.synchronize().unwrap();
    // SAFETY: none for the kernel that gets `bad`: it is to fail, which harms nothing but the context on the device.
    let launch = |kernel: usize, args: &[Arg]| unsafe { module.launch(kernel, args, &[]) };
    let mut both = || launch(1, &good).and_then(|()| launch(0, &bad));
    let failed = match how.as_str() {
        "launched" => launch(1, &good).and_then(|()| gpu.synchronize()).and_then(|()| launch(0, &bad)).and_then(|()| {
            let mut data = vec![0; memory[1].bytes()];
            gpu.read(&*memory[1], 0, &mut data).and_then(|()| gpu.synchronize())
        }),
        "recorded" => {
            let recording = gpu.record(&mut both).unwrap().unwrap();
            // SAFETY: as above.
            unsafe { recording.replay() }.and_then(|()| gpu.synchronize())
        }
        _ => [(1, &good[..]), (0, &bad)]
            .into_iter()
            .try_for_each(|(kernel, args)| gpu.timed(&mut || launch(kernel, args)).map(|_| ())),
    };
    let text = failed.unwrap_err().to_string();
    eprintln!("{how}: {text}");
    let kernels = match how.as_str() {
        "recorded" => format!("one of the kernels E_good, {} (DEBUG=2", case.code.name),
        _ => format!("while it ran kernel {}: ", case.code.name),
    };
    let parts = ["cuda:0 failed", &kernels, "CUDA_ERROR_ILLEGAL_ADDRESS", "process"];
    assert!(parts.iter().all(|p| text.contains(p)), "{text}");

    let mut memory = memory;
    let [first, second] = &mut memory;
    let same_text = |what: &str, result: Result<(), DeviceError>| {
        let e = result.expect_err(what);
        assert!(matches!(e, DeviceError::Fault { .. }) && e.to_string() == text, "{what}: {e}");
    };
    for gpu in [&gpu, &same] {
        same_text("allocate", gpu.allocate(16).map(|_| ()));
        same_text("upload", gpu.upload(&[1; 16]).map(|_| ()));
        same_text("write", gpu.write(&mut **first, 0, &[1; 16]));
        same_text("read", gpu.read(&**first, 0, &mut [0; 16]));
        same_text("copy", gpu.copy(&mut **second, &**first));
        same_text("duplicate", gpu.duplicate(&**first, 16).map(|_| ()));
        same_text("compile", gpu.compile(std::slice::from_ref(&case.code)).map(|_| ()));
        same_text("record", gpu.record(&mut || Ok(())).map(|_| ()));
        same_text("timed", gpu.timed(&mut || Ok(())).map(|_| ()));
        same_text("mark", gpu.mark());
        same_text("synchronize", gpu.synchronize());
    }
    same_text("launch", launch(1, &good));
    same_text("open", CudaDevice::new(0).map(|_| ()));
    for e in [f.call(&[&x]).map(|_| ()), unread[0].to_vec::<f32>().map(|_| ()), x.to(&*gpu).map(|_| ())] {
        let e = e.unwrap_err().to_string();
        assert!(e.contains(&text), "{e}");
    }

    // Everything of the device is dropped, and others go on.
    drop((module, memory, unread, f, gpu, same));
    same_text("open again", CudaDevice::new(0).map(|_| ()));
    let near = |y: &[f32]| y.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs());
    let cpu = function(Arc::new(device(None, 1)));
    assert!(near(&cpu.call(&[&x]).unwrap()[0].to_vec::<f32>().unwrap()));
    // Driver 580 opens no other GPU after that, either, and says why; one that does has to compute what is right.
    if CudaDevice::count().unwrap() > 1
        && let Err(e) = CudaDevice::new(1)
    {
        assert!(matches!(e, DeviceError::Fault { .. }) && e.to_string().contains("ILLEGAL_ADDRESS"), "{e}");
        eprintln!("cuda:1 is refused");
    } else if CudaDevice::count().unwrap() > 1 {
        let next = function(Arc::new(opened(1, None).unwrap()));
        assert!(near(&next.call(&[&x]).unwrap()[0].to_vec::<f32>().unwrap()));
        eprintln!("cuda:1 goes on");
    }
}

/// A kernel that fails as `how` says is named by one and the same error of everything that follows.
fn after_a_failure(how: &str) {
    super::beside();
    if opened(0, None).is_none() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let child =
        Command::new(program).args(["--exact", "fault::child_process", "--nocapture"]).env(HOW, how).output().unwrap();
    let text = String::from_utf8_lossy(&child.stderr).into_owned();
    let told: Vec<&str> = text.lines().filter(|l| l.starts_with(how) || l.starts_with("cuda:1")).collect();
    eprintln!("{}", told.join("\n"));
    assert!(child.status.success() && !told.is_empty(), "{}: {text}", child.status);
}

#[test]
fn a_kernel_that_fails_is_told_by_what_follows() {
    after_a_failure("launched");
}

#[test]
fn a_kernel_that_fails_in_a_recording_is_one_of_those_recorded() {
    after_a_failure("recorded");
}

#[test]
fn a_kernel_that_fails_while_it_is_timed_is_named() {
    after_a_failure("timed");
}
