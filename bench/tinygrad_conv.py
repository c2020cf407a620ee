"""tinygrad's CPU backend with WINO=1 beside `winograph bench conv`, run alternately.

    python3 -m venv .venv && .venv/bin/pip install tinygrad numpy
    cargo build --release
    .venv/bin/python bench/tinygrad_conv.py target/release/winograph

Prints, per layer, the median milliseconds of both and the ratio, over five rounds.
"""
import json
import os
import statistics
import subprocess
import sys
import time

LAYERS = [("reference", 16, 64, 16), ("res2", 64, 56, 64), ("res4", 256, 14, 256), ("vgg3.2", 256, 56, 256)]
ROUNDS = 5


def tinygrad_ms(c, size, k, runs=20):
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
print(sorted(times)[len(times) // 2] * 1e3)
"""
    env = dict(os.environ, WINO="1", DEV="CPU")
    return float(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout)


def winograph_ms(binary, c, size, k):
    args = ["bench", "conv", "--input", f"1,{c},{size},{size}", "--weight", f"{k},{c},3,3", "--padding", "1",
            "--algo", "graph,tensor", "--threads", "2", "--runs", "50", "--json"]
    out = json.loads(subprocess.run([binary, *args], capture_output=True, text=True, check=True).stdout)
    return {r["algo"]: r["median_ms"] for r in out["results"]}


def main():
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
