#!/usr/bin/env python3
"""What tf32 and half floats leave unused of a GPU, by ncu's counters: our kernels beside those that cuDNN chooses.

    cargo build --release -p winograph --example gpu_layers
    python3 bench/units_profile.py 16 vgg1.2+vgg3.2+vgg5.2+res3

Shares of what the device can do, in percent of the kernel's time: its matrix units, the first-level caches with shared memory, the
second-level cache, the memory; registers of a thread, KiB of shared memory of a workgroup, warps a multiprocessor has at a time. Times by ncu
are of cold caches and its clocks.
"""
import csv
import io
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/examples/gpu_layers"
OURS = ["f16 direct", "f16 F4", "tf32 direct", "tf32 F4"]
SECTIONS = ["SpeedOfLight", "LaunchStats", "Occupancy"]
COLUMNS = {  # heading: ncu's name
    "us": "Duration",
    "matrix units": "tensor",
    "L1, shared": "L1/TEX Cache Throughput",
    "L2": "L2 Cache Throughput",
    "memory": "DRAM Throughput",
    "registers": "Registers Per Thread",
    "KiB": "shared",
    "warps": "Achieved Active Warps Per SM",
}
NCU = ["ncu", "--clock-control", "none", "--csv", "--page", "details", "--print-metric-name", "label"]


def tensor_metric():
    """The counter of cycles in which matrix units work, as this ncu calls it."""
    names = subprocess.run(["ncu", "--query-metrics"], capture_output=True, text=True).stdout
    for name in ("sm__pipe_tensor_cycles_active", "sm__inst_executed_pipe_tensor", "sm__pipe_tensor_op_hmma_cycles_active"):
        if re.search(rf"^{name}\s", names, re.M):
            return f"{name}.avg.pct_of_peak_sustained_elapsed"
    sys.exit("ncu knows no counter of matrix units")


def profile(command, metric, options=()):
    """The metrics of each kernel in the order of launches, and what the program printed."""
    sections = [word for s in SECTIONS for word in ("--section", s)]
    done = subprocess.run([*NCU, *sections, "--metrics", metric, *options, *command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"ncu exited with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    lines = done.stdout.splitlines()
    table = [line for line in lines if line.startswith('"')]
    kernels = {}
    for row in csv.DictReader(io.StringIO("\n".join(table))):
        of = kernels.setdefault(int(row["ID"]), {"kernel": row["Kernel Name"]})
        name, unit, value = row["Metric Name"], row["Metric Unit"], row["Metric Value"].replace(",", "")
        if not name:
            continue
        if name == "Duration":
            value = str(float(value) * {"ns": 1e-3, "us": 1, "ms": 1e3}[unit])
        if name.endswith("Shared Memory Per Block") and not name.startswith("Driver"):
            scale = {"byte/block": 1 / 1024, "Kbyte/block": 1, "Mbyte/block": 1024}[unit]
            name, value = "shared", str(float(of.get("shared", 0)) + float(value) * scale)
        of["tensor" if "tensor" in name else name] = value
    return [kernels[n] for n in sorted(kernels)], [line for line in lines if not line.startswith('"')]


def cudnn(n, names):
    """Runs cuDNN's choice for each layer and dtype between the profiler's marks, a kernel that fills memory before each."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    mark = torch.empty(1, device="cuda")
    for layer in json.loads((ROOT / "bench/layers.json").read_text())["layers"]:
        if layer["name"] not in names.split("+"):
            continue
        for name, dtype in (("f16", torch.float16), ("tf32", torch.float32)):
            of = dict(device="cuda", dtype=dtype)
            x = torch.randn(n, layer["c"], layer["h"], layer["w"], **of).to(memory_format=torch.channels_last)
            w = torch.randn(layer["k"], layer["c"], 3, 3, **of).to(memory_format=torch.channels_last)
            for _ in range(3):
                torch.nn.functional.conv2d(x, w, padding=1)
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
            mark.fill_(1)
            torch.nn.functional.conv2d(x, w, padding=1)
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()
            print(f"launched,{layer['name']},{n},cuDNN {name}", flush=True)


def row(cells):
    print("| " + " | ".join(cells) + " |")


def main(n, names):
    metric = tensor_metric()
    row(["layer", "way", "kernel", *COLUMNS])
    row(["---"] * (3 + len(COLUMNS)))

    def show(layer, way, kernel):
        number = lambda key: f"{float(kernel[key]):.{0 if key == 'Registers Per Thread' else 1}f}" if key in kernel else ""
        short = re.sub(r"<.*|\(.*", "", kernel["kernel"])
        row([layer, way, short[-48:], *(number(key) for key in COLUMNS.values())])

    kernels, printed = profile([PROGRAM, "once", str(n), names, *OURS], metric)
    launched = [line.split(",") for line in printed if line.startswith("launched,")]
    at = 0
    for _, layer, _, way, name in launched:
        while at < len(kernels) and not kernels[at]["kernel"].split("(")[0].endswith(name):
            at += 1  # What prepares weights.
        if at == len(kernels):
            sys.exit(f"{name} was not counted")
        show(layer, way, kernels[at])
        at += 1
    command = [sys.executable, __file__, "cudnn", str(n), names]
    kernels, printed = profile(command, metric, ["--profile-from-start", "off"])
    launched = iter([line.split(",") for line in printed if line.startswith("launched,")])
    for kernel in kernels:
        if "FillFunctor" in kernel["kernel"]:
            _, layer, _, way = next(launched)
        else:
            show(layer, way, kernel)


if __name__ == "__main__":
    if sys.argv[1] == "cudnn":
        cudnn(int(sys.argv[2]), sys.argv[3])
    else:
        main(int(sys.argv[1]), sys.argv[2])
