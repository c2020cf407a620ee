#!/usr/bin/env python3
"""PyTorch's cuDNN on the layers that `gpu_rules -- layers` measures: true f32 with benchmark mode on, medians of 20 by
device events. Given the other program's output, prints both side by side.

    target/release/examples/gpu_rules layers > ours.csv
    python3 bench/cudnn.py ours.csv
"""
import math
import statistics
import sys

import torch

LAYERS = {
    "vgg1.2": (64, 224, 64), "vgg2.2": (128, 112, 128), "vgg3.2": (256, 56, 256), "vgg4.2": (512, 28, 512),
    "vgg5.2": (512, 14, 512), "res2": (64, 56, 64), "res3": (128, 28, 128), "res4": (256, 14, 256), "res5": (512, 7, 512),
}

torch.backends.cudnn.benchmark = True
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False

ours = {}
for line in open(sys.argv[1]):
    part = line.strip().split(",")
    if part[0] == "ours":
        ours.setdefault((part[1], int(part[2])), {})[part[3]] = (float(part[4]), part[5], part[7])

print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}\n")
print("| layer | N | cuDNN fp32 us | Winograd F(4,3) us | its steps | ratio | direct us | ratio |")
print("|---|---|---|---|---|---|---|---|")
ratios = []
for n in (1, 16):
    for name, (c, size, k) in LAYERS.items():
        x = torch.randn(n, c, size, size, device="cuda")
        w = torch.randn(k, c, 3, 3, device="cuda")
        for _ in range(10):
            torch.nn.functional.conv2d(x, w, padding=1)
        times = []
        for _ in range(20):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            torch.nn.functional.conv2d(x, w, padding=1)
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) * 1e3)
        theirs = statistics.median(times)
        fast, direct = ours[name, n]["Winograd"], ours[name, n]["Direct"]
        ratios.append(theirs / min(fast[0], direct[0]))
        print(f"| {name} | {n} | {theirs:.1f} | {fast[0]:.1f} | {fast[1]} | {theirs / fast[0]:.2f} | {direct[0]:.1f} | "
              f"{theirs / direct[0]:.2f} |")
print(f"\nGeometric mean of cuDNN over the faster of ours: {math.exp(statistics.fmean(map(math.log, ratios))):.2f}")
