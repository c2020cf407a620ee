//! Prints the C of a convolution and, to stderr, its kernels: `dump direct|winograd n c h w k`.

#[path = "../tests/common/mod.rs"]
mod common;
use winograph_compiler::*;
fn main() {
    let a: Vec<usize> = std::env::args().skip(2).map(|x| x.parse().unwrap()).collect();
    let conv = common::Conv::conv2d(a[0], a[1], a[2], a[3], a[4]);
    let algorithm = if std::env::args().nth(1).unwrap() == "direct" { Algorithm::Direct } else { Algorithm::Winograd };
    let t = std::time::Instant::now();
    let t0 = Target::cpu(64);
    let options = Options { algorithm, ..Options::default() };
    let g = conv.graph();
    let (p, e) = compile(&g, &t0, &options).unwrap();
    let dt = t.elapsed();
    let t = std::time::Instant::now();
    compile(&g, &t0, &options).unwrap();
    eprintln!("compile {:?} then {:?}", dt, t.elapsed());
    for k in &e.kernels {
        eprintln!("{} {:?} {} {}", k.name, k.role, k.output, k.plan);
    }
    eprintln!("{:?}", e.windows);
    let c = render::c::render_c(&p.kernels, &t0).unwrap();
    println!("{}", c.text);
}
