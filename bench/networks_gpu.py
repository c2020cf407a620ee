#!/usr/bin/env python3
"""Whole networks on a GPU: agreement of `--device cuda:0` with the CPU, and times beside PyTorch's.

    cargo build --release
    python3 bench/networks_gpu.py target/release/winograph LIGHT_FOLDER [CASES_FOLDER]

LIGHT_FOLDER holds ONNX's `light` models (`onnx/backend/test/data/light` of its package), whose constant weights are
replaced by seeded random ones as `bench/models.py` does it. Both devices get the same input. Times are medians: ours of the
command's runs, copies of the input and the result included; PyTorch's of torchvision's network of that name with random
weights (f32 without tf32, channels first, a CUDA graph of one inference by device events, copies not included).
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy
import torch
import torchvision

from torch_graph import median_ms

HERE = os.path.dirname(os.path.abspath(__file__))
NETWORKS = {"resnet50": torchvision.models.resnet50, "vgg19": torchvision.models.vgg19}


def pytorch(make):
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    model = make(weights=None).eval().cuda()
    x = torch.randn(1, 3, 224, 224, device="cuda")
    return median_ms(lambda: model(x))


def ours(binary, case, device, out, extra=()):
    with open(os.path.join(case, "case.json"), encoding="utf-8") as f:
        what = json.load(f)
    words = [binary, "run", os.path.join(case, "model.onnx"), "--device", device, "--json", *extra]
    for i, name in enumerate(what["inputs"]):
        words += ["--input", f"{name}={os.path.join(case, f'input_{i}.npy')}"]
    words += ["--output", f"{what['outputs'][0]}={out}"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{device}: {done.stderr}")
    return json.loads(done.stdout)


def main():
    binary, light = sys.argv[1:3]
    folder = sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp()
    print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}\n")
    print("| network | run ms | compile ms | PyTorch ms | PyTorch over ours | relative L2 from the CPU |\n|---|---|---|---|---|---|")
    for name, make in NETWORKS.items():
        case = os.path.join(folder, name)
        path = os.path.join(light, f"light_{name}.onnx")
        subprocess.run([sys.executable, os.path.join(HERE, "model_worker.py"), "make", name, path, case, "{}"], check=True)
        results = [os.path.join(case, f"{d}.npy") for d in ("cpu", "cuda")]
        ours(binary, case, "cpu", results[0])
        report = ours(binary, case, "cuda:0", results[1], ["--runs", "20"])
        cpu, cuda = (numpy.load(r).astype("float64") for r in results)
        apart = numpy.linalg.norm(cuda - cpu) / numpy.linalg.norm(cpu)
        theirs, mine = pytorch(make), report["median_ms"]
        print(f"| {name} | {mine:.3f} | {report['compile_ms']:.0f} | {theirs:.3f} | {theirs / mine:.2f} | {apart:.1e} |", flush=True)


main()
