//! Generated C on several threads, as the pool runs it, under the C compiler's thread sanitizer. Skipped, with a line
//! that says so, where the compiler has none.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use winograph::cpu::{CpuDevice, CpuOptions, host_target};
use winograph::env::Env;
use winograph::{ArgSpec, ConvOptions, DType, Options, Result, Tensor, plan};
use winograph_compiler::render::{grid_items, render_c, scratch_bytes};
use winograph_compiler::{Algorithm, Program, Target};

/// What each thread of the pool does, and a `main` that runs all steps on `argv[1]` threads and prints a hash of all
/// buffers. With a second argument every thread runs all items: the control, which the sanitizer has to find.
const HARNESS: &str = r#"
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void kernel(uint8_t *const *, const int64_t *, uint8_t *, int64_t, int64_t);
struct job { kernel *f; uint8_t **args; size_t scratch; int64_t items, chunk; int twice; int64_t next; };
static pthread_barrier_t start;
static void *work(void *p) {
    struct job *j = p;
    pthread_barrier_wait(&start);
    uint8_t *scratch = aligned_alloc(4096, j->scratch + 4096);
    if (j->twice) j->f(j->args, 0, scratch, 0, j->items);
    else for (;;) {
        int64_t begin = __atomic_fetch_add(&j->next, j->chunk, __ATOMIC_RELAXED);
        if (begin >= j->items) break;
        int64_t end = begin + j->chunk;
        j->f(j->args, 0, scratch, begin, end < j->items ? end : j->items);
    }
    free(scratch);
    return 0;
}
static void run(int threads, int twice, kernel *f, uint8_t **args, size_t scratch, int64_t items) {
    int64_t chunk = items / (threads * 8);
    struct job j = { f, args, (scratch + 4095) / 4096 * 4096, items, chunk > 1 ? chunk : 1, twice, 0 };
    pthread_t t[16];
    pthread_barrier_init(&start, 0, threads);
    for (int i = 0; i < threads; i++) if (pthread_create(&t[i], 0, work, &j)) exit(2);
    for (int i = 0; i < threads; i++) pthread_join(t[i], 0);
    pthread_barrier_destroy(&start);
}
static uint8_t *buffer(int64_t bytes, int n) {
    uint8_t *b = aligned_alloc(64, (bytes + 127) / 64 * 64);
    float *f = (float *)b;
    memset(b, 0, (bytes + 127) / 64 * 64);
    for (int64_t i = 0; i < bytes / 4; i++) f[i] = (float)((i * 37 + n) % 129) / 64.0f - 1.0f;
    return b;
}
"#;

fn source(program: &Program) -> String {
    let rendered = render_c(&program.kernels, &target()).unwrap();
    let mut out = format!("{}\n{HARNESS}\nint main(int argc, char **argv) {{\n", rendered.text);
    let _ = writeln!(out, "int threads = atoi(argv[1]), twice = argc > 2; uint8_t *b[{}];", program.buffers.len() + 1);
    for (n, b) in program.buffers.iter().enumerate() {
        let _ = writeln!(out, "b[{n}] = buffer({}, {n});", b.len * b.dtype.size());
    }
    for step in program.prepare.iter().chain(&program.run) {
        let code = &program.kernels[step.kernel];
        let args: Vec<String> = step.args.iter().map(|a| format!("b[{a}]")).collect();
        let _ = writeln!(
            out,
            "{{ uint8_t *args[] = {{ {} }}; run(threads, twice, (kernel *){}, args, {}, {}); }}",
            args.join(", "),
            rendered.symbols[step.kernel],
            scratch_bytes(code).unwrap(),
            grid_items(code, &[]).unwrap()
        );
    }
    out.push_str("uint64_t h = 1469598103934665603u;\n");
    for (n, b) in program.buffers.iter().enumerate() {
        let bytes = b.len * b.dtype.size();
        let _ = writeln!(out, "for (int64_t i = 0; i < {bytes}; i++) h = (h ^ b[{n}][i]) * 1099511628211u;");
    }
    out.push_str("printf(\"%llx\\n\", (unsigned long long)h);\nreturn 0;\n}\n");
    out
}

/// Compiles with the sanitizer; `None` where the compiler has none.
fn build(cc: &Path, dir: &Path, name: &str, text: &str) -> Option<std::path::PathBuf> {
    let (file, out) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(cc);
    command.args(["-std=gnu11", "-O1", "-g1", "-ffp-contract=off", "-fno-strict-aliasing", "-w"]);
    let done = command.arg("-fsanitize=thread").arg(&file).arg("-o").arg(&out).args(["-lm", "-lpthread"]).output();
    let done = done.unwrap();
    if !done.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&done.stderr));
        return None;
    }
    Some(out)
}

/// Runs a program, without randomised addresses where that can be had: older sanitizers need it.
fn execute(program: &Path, args: &[&str]) -> Output {
    match Command::new("setarch").arg("-R").arg(program).args(args).output() {
        Ok(out) if !String::from_utf8_lossy(&out.stderr).starts_with("setarch") => out,
        _ => Command::new(program).args(args).output().unwrap(),
    }
}

/// Clang's sanitizer sees no access of more than 16 bytes and no masked one: the code is for vectors of that size.
fn target() -> Target {
    Target { vector_bytes: 16, ..host_target() }
}

fn programs() -> Vec<(&'static str, Program)> {
    let f32s = |shapes: &[&[usize]]| shapes.iter().map(|s| ArgSpec::new(DType::F32, s)).collect::<Vec<_>>();
    let make = |args: Vec<ArgSpec>, algorithm, f: &dyn Fn(&[Tensor]) -> Result<Tensor>| {
        let options = Options { algorithm, ..Options::default() };
        plan(&args, &target(), &options, false, |args| Ok(vec![f(args)?])).unwrap().0
    };
    let conv = |a: &[Tensor]| a[0].conv_direct(&a[1], None, &ConvOptions::padding(1))?.relu();
    let both = || f32s(&[&[1, 16, 28, 28], &[32, 16, 3, 3]]);
    vec![
        ("winograd", make(both(), Algorithm::Winograd, &conv)),
        ("direct", make(both(), Algorithm::Direct, &conv)),
        ("matmul", make(f32s(&[&[70, 50], &[50, 90]]), Algorithm::Auto, &|a| a[0].matmul(&a[1]))),
        ("softmax", make(f32s(&[&[64, 100]]), Algorithm::Auto, &|a| a[0].softmax(-1))),
        (
            "movement",
            make(f32s(&[&[40, 33]]), Algorithm::Auto, &|a| {
                Tensor::cat(&[&a[0].flip(&[0])?, &a[0].roll_by_hand()?], 1)?.transpose(0, 1)?.contiguous()
            }),
        ),
    ]
}

trait Roll {
    fn roll_by_hand(&self) -> Result<Tensor>;
}

impl Roll for Tensor {
    /// The last row first.
    fn roll_by_hand(&self) -> Result<Tensor> {
        let n = self.shape()[0];
        Tensor::cat(&[&self.narrow(0, n - 1, 1)?, &self.narrow(0, 0, n - 1)?], 0)
    }
}

#[test]
fn generated_code_has_no_data_races() {
    let device = CpuDevice::new(CpuOptions::from_env(&Env::read().unwrap())).unwrap();
    let cc = device.compiler().unwrap().program().to_path_buf();
    let dir = tempfile::tempdir().unwrap();
    let trivial = build(&cc, dir.path(), "trivial", "int main() { return 0; }");
    if !trivial.is_some_and(|p| execute(&p, &[]).status.success()) {
        eprintln!("skipped: {} has no thread sanitizer that works here", cc.display());
        return;
    }
    for (name, program) in programs() {
        let built = build(&cc, dir.path(), name, &source(&program)).unwrap();
        let one = execute(&built, &["1"]);
        assert!(one.status.success() && !one.stdout.is_empty(), "{name}: {one:?}");
        for threads in ["3", "8"] {
            let several = execute(&built, &[threads]);
            assert!(several.status.success(), "{name}: {}", String::from_utf8_lossy(&several.stderr));
            assert_eq!(several.stdout, one.stdout, "{name} gives other numbers on {threads} threads");
        }
        // The sanitizer sees a race only where the two meet, which a busy machine may prevent now and then.
        let notices = || String::from_utf8_lossy(&execute(&built, &["2", "twice"]).stderr).contains("data race");
        assert!((0..10).any(|_| notices()), "{name}: two threads that write the same are not noticed");
    }
}
