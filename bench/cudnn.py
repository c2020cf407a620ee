#!/usr/bin/env python3
"""PyTorch's cuDNN on the layers of layers.json beside what `gpu_layers` measured, on the same machine: medians of 20
replays of a graph of ten convolutions by device events, as ours are, benchmark mode on. True f32 has channels first and no tf32; tf32, f16 and bf16 have channels last.

    target/release/examples/gpu_layers > ours.csv
    python3 bench/cudnn.py ours.csv            # or what `gpu_layers ways` printed
"""
import json
import math
import pathlib
import statistics
import sys

import torch

from torch_graph import median_ms

LAYERS = json.loads((pathlib.Path(__file__).parent / "layers.json").read_text())["layers"]
KINDS = {  # name: dtype, tf32, channels last, our ways
    "true f32": (torch.float32, False, False, ("f32 F4", "f32 direct")),
    "true f32 as auto chooses": (torch.float32, False, False, ("f32 auto",)),
    "three terms of tf32": (torch.float32, False, False, ("f32 F4", "3xtf32 F4")),
    "tf32": (torch.float32, True, True, ("tf32 direct", "tf32 F2", "tf32 F4")),
    "f16": (torch.float16, True, True, ("f16 direct", "f16 F2", "f16 F4")),
    "bf16": (torch.bfloat16, True, True, ("bf16 direct", "bf16 F2", "bf16 F4")),
    "tf32 as auto chooses": (torch.float32, True, True, ("tf32 auto",)),
    "f16 as auto chooses": (torch.float16, True, True, ("f16 auto",)),
    "bf16 as auto chooses": (torch.bfloat16, True, True, ("bf16 auto",)),
}


def measure(layer, n, dtype, tf32, last):
    torch.backends.cudnn.allow_tf32 = tf32
    x = torch.randn(n, layer["c"], layer["h"], layer["w"], device="cuda", dtype=dtype)
    w = torch.randn(layer["k"], layer["c"], 3, 3, device="cuda", dtype=dtype)
    if last:
        x, w = x.to(memory_format=torch.channels_last), w.to(memory_format=torch.channels_last)
    return 1e3 * median_ms(lambda: torch.nn.functional.conv2d(x, w, padding=1), repeat=10)


torch.backends.cudnn.benchmark = True
torch.backends.cuda.matmul.allow_tf32 = False
ours = {}
for line in open(sys.argv[1]):
    line = line.strip()
    part = line.split("," if line.startswith("ours") else "\t")
    if part[0] == "ours":
        ours.setdefault((part[1], int(part[2])), {})[part[3]] = (float(part[4]), part[5])
    elif part[0] == "way" and part[1] != "layer":
        ours.setdefault((part[1], int(part[2])), {})[part[3]] = (float(part[5]), part[6])
    elif line.startswith("wrong"):
        print(line)

print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}\n")
for kind, (dtype, tf32, last, ways) in KINDS.items():
    present = [w for w in ways if any(w in o for o in ours.values())]
    if not present:
        continue
    print(f"### {kind}\n")
    print("| layer | N | cuDNN us (TFLOP/s) | " + " | ".join(f"{w} us | its steps | ratio" for w in present) + " |")
    print("|---|---|---|" + "---|---|---|" * len(present))
    ratios = {}
    for n in (1, 16, 64):
        for layer in LAYERS:
            found = ours.get((layer["name"], n), {})
            if not any(w in found for w in present):
                continue
            theirs = measure(layer, n, dtype, tf32, last)
            torch.cuda.empty_cache()
            flops = 2 * n * layer["k"] * layer["c"] * layer["h"] * layer["w"] * 9
            cells = [layer["name"], str(n), f"{theirs:.1f} ({flops / theirs * 1e-6:.0f})"]
            for w in present:
                if w in found:
                    us, steps = found[w]
                    cells += [f"{us:.1f}", steps if "+" in steps else "", f"{theirs / us:.2f}"]
                else:
                    cells += ["", "", ""]
            print("| " + " | ".join(cells) + " |")
            ratios.setdefault(n, []).append(theirs / min(found[w][0] for w in present if w in found))
    print()
    for n, r in ratios.items():
        print(f"N = {n}: cuDNN over the faster of ours, geometric mean {math.exp(statistics.fmean(map(math.log, r))):.2f},"
              f" least {min(r):.2f}, largest {max(r):.2f}")
    both = ratios.get(1, []) + ratios.get(16, [])
    if both:
        print(f"N = 1 and 16: geometric mean {math.exp(statistics.fmean(map(math.log, both))):.2f}, least {min(both):.2f}")
    print()
