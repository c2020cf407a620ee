"""tinygrad's CPU backend with WINO=1 beside `winograph bench conv`, run alternately.

    python3 -m venv .venv && .venv/bin/pip install tinygrad numpy
    cargo build --release
    .venv/bin/python bench/tinygrad_conv.py target/release/winograph

Prints, per layer, the median milliseconds of both and the ratio, over five rounds.

    cargo build --release -p winograph --example gpu_layers
    .venv/bin/python bench/tinygrad_conv.py --cuda target/release/examples/gpu_layers

does the same on a GPU: tinygrad's CUDA backend with WINO=0 and WINO=1, without search, beside what `auto` chooses in f32, over three
rounds. tinygrad's time is that of 20 calls in a row, waited for once, by the clock, or that of single calls where those are shorter; ours
is by device events. NVRTC_PATH names NVRTC's library for tinygrad, WINOGRAPH_NVRTC its folder for us.
"""
import json
import os
import statistics
import subprocess
import sys
import time

GPU_LAYERS = [("reference", 16, 64, 16), ("vgg2.2", 128, 112, 128), ("vgg3.2", 256, 56, 256), ("vgg4.2", 512, 28, 512),
              ("vgg5.2", 512, 14, 512), ("res2", 64, 56, 64), ("res3", 128, 28, 128), ("res4", 256, 14, 256),
              ("res5", 512, 7, 512)]
GPU_ROUNDS = 3
LAYERS = [("reference", 16, 64, 16), ("res2", 64, 56, 64), ("res4", 256, 14, 256), ("vgg3.2", 256, 56, 256)]
ROUNDS = 5


def tinygrad_ms(c, size, k, device="CPU", wino="1", runs=20):
    code = f"""
import time
from tinygrad import Tensor, TinyJit, Device
x, w = Tensor.randn(1, {c}, {size}, {size}).realize(), Tensor.randn({k}, {c}, 3, 3).realize()
@TinyJit
def f(x): return x.conv2d(w, padding=1).realize()
device = Device[Device.DEFAULT]
for _ in range(5): f(x)
device.synchronize()
times = []
for _ in range({runs}):
    start = time.perf_counter(); f(x); device.synchronize(); times.append(time.perf_counter() - start)
start = time.perf_counter()
for _ in range({runs}): f(x)
device.synchronize()
row = (time.perf_counter() - start) / {runs}
single = sorted(times)[len(times) // 2]
print(1e3 * (min(single, row) if Device.DEFAULT == "CUDA" else single))
"""
    env = dict(os.environ, WINO=wino, DEV=device)
    return float(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout)


def winograph_ms(binary, c, size, k):
    args = ["bench", "conv", "--input", f"1,{c},{size},{size}", "--weight", f"{k},{c},3,3", "--padding", "1",
            "--algo", "graph,tensor", "--threads", "2", "--runs", "50", "--json"]
    out = json.loads(subprocess.run([binary, *args], capture_output=True, text=True, check=True).stdout)
    return {r["algo"]: r["median_ms"] for r in out["results"]}


def gpu_us(binary, name):
    out = subprocess.run([binary, "quick", "1", name, "f32 auto"], capture_output=True, text=True, check=True).stdout
    return float(next(line for line in out.splitlines() if line.startswith("ours,")).split(",")[4])


def gpu(binary):
    print("| layer | tinygrad WINO=0 us | WINO=1 us | ours us | the faster of tinygrad's over ours |\n|---|---|---|---|---|")
    for name, c, size, k in GPU_LAYERS:
        rows = []
        for _ in range(GPU_ROUNDS):
            theirs = [1e3 * tinygrad_ms(c, size, k, "CUDA", wino) for wino in "01"]
            rows.append((*theirs, gpu_us(binary, name)))
        direct, wino, ours = (statistics.median(r[i] for r in rows) for i in range(3))
        speed = sorted(min(r[:2]) / r[2] for r in rows)
        print(f"| {name} | {direct:.0f} | {wino:.0f} | {ours:.1f} | {speed[GPU_ROUNDS // 2]:.1f} ({speed[0]:.1f}-{speed[-1]:.1f}) |", flush=True)


def main():
    if sys.argv[1:2] == ["--cuda"]:
        return gpu(sys.argv[2])
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/winograph"
    print(f"{'layer':10} {'tinygrad':>9} {'graph':>8} {'tensor':>8} {'tinygrad/graph':>15} {'tensor/graph':>13}   (median ms of {ROUNDS} rounds)")
    for name, c, size, k in LAYERS:
        rows = []
        for _ in range(ROUNDS):
            ours = winograph_ms(binary, c, size, k)
            rows.append((tinygrad_ms(c, size, k), ours["graph"], ours["tensor"]))
        t, g, o = (statistics.median(r[i] for r in rows) for i in range(3))
        speed = sorted(r[0] / r[1] for r in rows)
        forms = sorted(r[2] / r[1] for r in rows)
        print(f"{name:10} {t:9.3f} {g:8.3f} {o:8.3f} {speed[ROUNDS // 2]:7.1f} ({speed[0]:.1f}-{speed[-1]:.1f}) {forms[ROUNDS // 2]:5.2f} ({forms[0]:.2f}-{forms[-1]:.2f})", flush=True)


if __name__ == "__main__":
    main()
