"""Every tensor operation beside PyTorch's of the same name, on random and edge inputs.

    python3 -m venv .venv && .venv/bin/pip install torch numpy
    cargo build --release -p winograph --example tensor_ops
    .venv/bin/python bench/torch_ops.py target/release/examples/tensor_ops [--only TEXT] [--verbose]

Integers, truth values and NaN must be equal, floats within the case's ulps (of the result's dtype), and what PyTorch
refuses must be refused. Prints a line for each difference and a summary; exit code 1 if there is any that is not
listed as deliberate below.
"""
import argparse
import itertools
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

T = torch
NAMES = {T.float32: "f32", T.float64: "f64", T.float16: "f16", T.bfloat16: "bf16", T.int8: "i8", T.int32: "i32",
         T.int64: "i64", T.uint8: "u8", T.bool: "bool"}
FLOATS = [T.float32, T.float64, T.float16, T.bfloat16]
INTS = [T.int8, T.uint8, T.int32, T.int64]
BITS = {T.float32: (T.int32, 23), T.float64: (T.int64, 52), T.float16: (T.int16, 10), T.bfloat16: (T.int16, 7)}

# Differences that are meant, by the start of the case's name: why.
DELIBERATE = {
    "div_trunc int by 0": "PyTorch raises where an integer is divided by 0; here it is 0, as documented",
    "div_floor int by 0": "PyTorch raises where an integer is divided by 0; here it is 0, as documented",
    "fmod int by 0": "PyTorch raises where an integer is divided by 0; here it is 0, as documented",
    "remainder int by 0": "PyTorch raises where an integer is divided by 0; here it is 0, as documented",
    "cast out of range": "undefined in PyTorch; here floats saturate and NaN is 0, as documented",
    "add mixed dtypes": "no implicit promotion: mixed dtypes are an error",
    # PyTorch's own kernels, which differ from one dtype or size to another; here the definition holds for all.
    "erf edges bf16": "PyTorch gives 0 for subnormal results",
    "gelu edges": "PyTorch's vectors overflow at the largest number and give NaN for infinity; here the limit",
    "fmod edges": "PyTorch's vectors give NaN where the quotient overflows; here the remainder, as C's fmod",
    "remainder edges": "PyTorch's vectors give NaN where the quotient overflows; here the remainder",
    "div_floor edges f16": "computed in f32 and rounded once; PyTorch rounds each step",
    "pow 0.5 f16": "a root, as PyTorch has it for f32: NaN of -infinity",
    "pow -0.5 f16": "a root's reciprocal, as PyTorch has it for f32: -infinity of -0",
    "log_softmax -1 f16": "computed in f32 and rounded once; PyTorch is two units off",
}

CASES = []


def case(name, line, inputs, expected, ulps=0, absolute=0.0):
    """`line` is what tensor_ops reads beside its operands; `expected` is called without arguments."""
    CASES.append((name, line, inputs, expected, ulps, absolute))


def rand(shape, dtype=T.float32, seed=0, low=-3.0, high=3.0):
    g = T.Generator().manual_seed(seed + 17 * len(shape) + sum(shape))
    if dtype.is_floating_point:
        return (T.rand(shape, generator=g, dtype=T.float64) * (high - low) + low).to(dtype)
    if dtype == T.bool:
        return T.randint(0, 2, shape, generator=g).to(T.bool)
    least = 0 if dtype == T.uint8 else -9
    return T.randint(least, 10, shape, generator=g).to(dtype)


def edges(dtype):
    """Zeros, subnormals, halves, large and non-finite values."""
    f = T.finfo(dtype)
    v = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.5, 3.0, -3.0, 7.0, 1e-3, -1e-3, 10.0, -10.0, 20.0, -20.0, 90.0, -90.0,
         f.max, -f.max, f.tiny, -f.tiny, f.tiny / 2, float("inf"), -float("inf"), float("nan")]
    return T.tensor(v, dtype=T.float64).to(dtype)


def nans(shape, dtype=T.float32):
    x = rand(shape, dtype, 5)
    x.view(-1)[::7] = float("nan")
    x.view(-1)[1::5] = float("inf")
    x.view(-1)[2::11] = -float("inf")
    return x


def half_ulps(dtype, ulps):
    """Functions of half floats are computed in f32 and rounded once, in PyTorch too."""
    return 1 if dtype in (T.float16, T.bfloat16) else ulps


# Elementwise.
UNARY = {"neg": (T.neg, 0), "abs": (T.abs, 0), "exp": (T.exp, 2), "log": (T.log, 2), "sqrt": (T.sqrt, 1), "rsqrt": (T.rsqrt, 2),
         "reciprocal": (T.reciprocal, 0), "square": (T.square, 0), "sign": (T.sign, 0), "sin": (T.sin, 2), "cos": (T.cos, 2),
         "tanh": (T.tanh, 4), "erf": (T.erf, 4), "floor": (T.floor, 0), "ceil": (T.ceil, 0), "trunc": (T.trunc, 0),
         "round": (T.round, 0), "isnan": (T.isnan, 0), "relu": (T.relu, 0), "sigmoid": (T.sigmoid, 4), "silu": (F.silu, 6),
         "gelu": (F.gelu, 0), "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), 0)}
for name, (f, ulps) in UNARY.items():
    near = 2e-6 if name.startswith("gelu") or name == "silu" else 0.0
    for d in FLOATS:
        near_d = {T.float64: near * 1e-7, T.float32: near, T.float16: near and 1e-3, T.bfloat16: near and 1e-2}[d]
        case(f"{name} {NAMES[d]}", name, [rand([4, 33], d)], lambda f=f, d=d: f(rand([4, 33], d)), half_ulps(d, ulps), near_d)
        case(f"{name} edges {NAMES[d]}", name, [edges(d)], lambda f=f, d=d: f(edges(d)), half_ulps(d, ulps), near_d)
    for d in INTS + [T.bool]:
        case(f"{name} {NAMES[d]}", name, [rand([3, 7], d)], lambda f=f, d=d: f(rand([3, 7], d)), ulps, near)
big = T.tensor([1e4, 3e5, 1e7, 1e15, 1e22, 3.4e38, 123456.789])
for name, f in (("sin", T.sin), ("cos", T.cos)):
    case(f"{name} large", name, [big], lambda f=f: f(big), 2)
    case(f"{name} large f64", name, [big.double() * 1e200], lambda f=f: f(big.double() * 1e200), 2)

BINARY = {"add": T.add, "sub": T.sub, "mul": T.mul, "div": T.div, "maximum": T.maximum, "minimum": T.minimum, "lt": T.lt, "le": T.le,
          "gt": T.gt, "ge": T.ge, "eq": T.eq, "ne": T.ne, "fmod": T.fmod, "remainder": T.remainder, "pow": T.pow,
          "div_trunc": lambda a, b: T.div(a, b, rounding_mode="trunc"), "div_floor": lambda a, b: T.div(a, b, rounding_mode="floor")}
WHOLE = ("fmod", "remainder", "div_trunc", "div_floor")
for name, f in BINARY.items():
    ulps = 4 if name == "pow" else 0
    for d in FLOATS:
        a, b = rand([2, 3, 5], d, 1), rand([3, 1], d, 2)
        case(f"{name} broadcast {NAMES[d]}", name, [a, b], lambda f=f, a=a, b=b: f(a, b), half_ulps(d, ulps) if name == "pow" else ulps)
        e = edges(d)
        a, b = e.reshape(-1, 1).contiguous(), e.reshape(1, -1).contiguous()
        case(f"{name} edges {NAMES[d]}", name, [a, b], lambda f=f, a=a, b=b: f(a, b), half_ulps(d, ulps) if name == "pow" else ulps)
    for d in INTS:
        a, b = rand([4, 1, 6], d, 3), rand([5, 6], d, 4)
        if name in WHOLE:
            b = T.where(b == 0, T.ones_like(b), b)
        case(f"{name} {NAMES[d]}", name, [a, b], lambda f=f, a=a, b=b: f(a, b))
        if name in WHOLE:
            case(f"{name} int by 0 {NAMES[d]}", name, [a, T.zeros([1], dtype=d)], lambda f=f, a=a, d=d: f(a, T.zeros([1], dtype=d)))
        if d not in (T.uint8,) and name in WHOLE + ("add", "sub", "mul"):
            i = T.iinfo(d)
            a, b = T.tensor([i.min, i.max, i.min, -1], dtype=d), T.tensor([1, 3, -3, i.max], dtype=d)
            case(f"{name} extremes {NAMES[d]}", name, [a, b], lambda f=f, a=a, b=b: f(a, b))
    a, b = rand([6], T.bool, 1), rand([4, 1], T.bool, 2)
    case(f"{name} bool", name, [a, b], lambda f=f, a=a, b=b: f(a, b))
    case(f"{name} no broadcast", name, [rand([3]), rand([4])], lambda f=f: f(rand([3]), rand([4])))
    case(f"{name} of nothing", name, [rand([0, 3]), rand([1, 3])], lambda f=f: f(rand([0, 3]), rand([1, 3])))
case("add mixed dtypes", "add", [rand([3]), rand([3], T.int32)], lambda: rand([3]) + rand([3], T.int32))
for p in (2, 3, -1, 0.5, -0.5, 0, 1, 2.5, -2, 4):
    for d in FLOATS:
        case(f"pow {p} {NAMES[d]}", f"pow number={p}", [edges(d)], lambda p=p, d=d: edges(d) ** p, half_ulps(d, 4))
for p in (0, 1, 2, 3, 5, -1):
    for d in INTS:
        case(f"pow {p} {NAMES[d]}", f"pow number={p}", [rand([9], d)], lambda p=p, d=d: rand([9], d) ** p)
for d in FLOATS + INTS:
    c, a, b = rand([4, 1], T.bool), rand([5], d, 1), rand([4, 5], d, 2)
    case(f"where {NAMES[d]}", "where", [c, a, b], lambda c=c, a=a, b=b: T.where(c, a, b))
for d in FLOATS:
    for lo, hi in ((-1.0, 1.0), (None, 0.5), (-0.5, None), (2.0, -2.0), (float("nan"), 1.0)):
        line = "clamp" + (f" min={lo}" if lo is not None else "") + (f" max={hi}" if hi is not None else "")
        case(f"{line} {NAMES[d]}", line, [edges(d)], lambda d=d, lo=lo, hi=hi: T.clamp(edges(d), lo, hi))
case("clamp i32", "clamp min=-2 max=3", [rand([9], T.int32)], lambda: T.clamp(rand([9], T.int32), -2, 3))
for slope in (0.01, -0.5, 2.0, 0.0):
    for d in FLOATS:
        case(f"leaky_relu {slope} {NAMES[d]}", f"leaky_relu slope={slope}", [edges(d)], lambda s=slope, d=d: F.leaky_relu(edges(d), s))
for shape, n in (([2, 3, 4], 3), ([2, 3, 4], 1), ([5], 1), ([2, 3], 3)):
    x, w = rand(shape), rand([n], seed=9)
    case(f"prelu {shape} {n}", "prelu", [x, w], lambda x=x, w=w: F.prelu(x, w))

# Casts.
for a, b in itertools.product(FLOATS + INTS + [T.bool], repeat=2):
    if a.is_floating_point:
        x = T.tensor([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 100.7, 3.14159, 1e-8, 65504.0, 0.1, 1 / 3], dtype=T.float64).to(a)
        if b in (T.int8, T.uint8):
            x = T.tensor([0.0, 0.5, 1.5, 100.7, 0.99], dtype=T.float64).to(a)
        if b.is_floating_point:
            x = T.cat([x, edges(a)])
    else:
        x = rand([40], a)
    case(f"cast {NAMES[a]} to {NAMES[b]}", f"cast dtype={NAMES[b]}", [x], lambda x=x, b=b: x.to(b))
for b in INTS:
    x = T.tensor([1e10, -1e10, 3e38, float("inf"), -float("inf"), float("nan"), 300.0, -1.0])
    case(f"cast out of range f32 to {NAMES[b]}", f"cast dtype={NAMES[b]}", [x], lambda x=x, b=b: x.to(b))
ties = T.arange(0x3F80, 0x3F80 + 64, dtype=T.int32) * 65536 + 0x8000
case("cast ties to bf16", "cast dtype=bf16", [ties.view(T.float32)], lambda: ties.view(T.float32).to(T.bfloat16))
ties16 = (T.arange(0, 64, dtype=T.float64) / 1024 + 1 + 1 / 2048).float()
case("cast ties to f16", "cast dtype=f16", [ties16], lambda: ties16.to(T.float16))

# Reductions.
SHAPE = [3, 4, 5]
for keep in (0, 1):
    for axes in ([0], [-1], [1, -1], [0, 1, 2], []):
        words = f"keep={keep} axes={','.join(map(str, axes))}"
        dims = axes if axes else None
        for name, f in (("sum", T.sum), ("mean", T.mean), ("max", T.amax), ("min", T.amin)):
            for d in FLOATS + ([] if name == "mean" else INTS + [T.bool]):
                if name in ("max", "min") and not axes:
                    continue
                if not axes and name in ("sum", "mean"):
                    continue
                x = rand(SHAPE, d)
                ulps, near = (0, 0.0) if not d.is_floating_point else (2, {T.float32: 4e-6, T.float64: 1e-14}.get(d, 0.0))
                case(f"{name} {axes} {keep} {NAMES[d]}", f"{name} {words}", [x],
                     lambda f=f, x=x, dims=dims, keep=keep: f(x, dim=dims, keepdim=bool(keep)), ulps, near)
            if d.is_floating_point or name != "mean":
                x = nans(SHAPE)
                if axes:
                    case(f"{name} {axes} {keep} nan", f"{name} {words}", [x],
                         lambda f=f, x=x, dims=dims, keep=keep: f(x, dim=dims, keepdim=bool(keep)), 2, 4e-6)
        if axes:
            for biased in (0, 1):
                x = rand(SHAPE)
                case(f"var {axes} {keep} biased={biased}", f"var {words} biased={biased}", [x],
                     lambda x=x, a=axes, k=keep, b=biased: T.var(x, dim=a, correction=1 - b, keepdim=bool(k)), 8, 1e-6)
for axes in ([0], [1], [0, 1]):
    words = f"axes={','.join(map(str, axes))}"
    for shape in ([0, 3], [3, 0]):
        for name, f in (("sum", T.sum), ("mean", T.mean), ("max", T.amax), ("min", T.amin), ("var", T.var)):
            case(f"{name} {axes} of {shape}", f"{name} {words}", [T.zeros(shape)], lambda f=f, s=shape, a=axes: f(T.zeros(s), dim=a))
case("var of one", "var axes=0", [rand([1, 3])], lambda: T.var(rand([1, 3]), dim=0))
case("sum of a scalar", "sum axes=0", [T.tensor(3.0)], lambda: T.sum(T.tensor(3.0), dim=0))
case("sum twice an axis", "sum axes=0,-3", [rand(SHAPE)], lambda: T.sum(rand(SHAPE), dim=[0, -3]))
case("sum missing axis", "sum axes=3", [rand(SHAPE)], lambda: T.sum(rand(SHAPE), dim=3))
for d in FLOATS:
    case(f"prod {NAMES[d]}", "prod axes=1", [rand([3, 4], d)], lambda d=d: T.prod(rand([3, 4], d), dim=1), 2)
for name, f in (("argmax", T.argmax), ("argmin", T.argmin)):
    for axis in (None, 0, -1, 1):
        for keep in (0, 1):
            line = f"{name} keep={keep}" + ("" if axis is None else f" axis={axis}")
            for x, what in ((rand(SHAPE), "f32"), (nans(SHAPE), "nan"), (rand(SHAPE, T.int32), "i32"), (T.ones(SHAPE), "equal"), (rand(SHAPE, T.float16), "f16")):
                case(f"{line} {what}", line, [x], lambda f=f, x=x, a=axis, k=keep: f(x, dim=a, keepdim=bool(k)))
    case(f"{name} of nothing", f"{name} axis=0", [T.zeros([0, 3])], lambda f=f: f(T.zeros([0, 3]), dim=0))
    case(f"{name} beside nothing", f"{name} axis=1", [T.zeros([0, 3])], lambda f=f: f(T.zeros([0, 3]), dim=1))
for name, f in (("softmax", T.softmax), ("log_softmax", T.log_softmax)):
    for axis in (0, -1, 1):
        for d in FLOATS:
            case(f"{name} {axis} {NAMES[d]}", f"{name} axis={axis}", [rand(SHAPE, d)], lambda f=f, a=axis, d=d: f(rand(SHAPE, d), a), half_ulps(d, 8), 1e-6 if d == T.float32 else 0.0)
    infs = T.tensor([[0.0, -float("inf"), 1.0], [-float("inf")] * 3, [float("inf"), 0.0, 1.0], [float("nan"), 0.0, 1.0], [1e4, 1e4, -1e4]])
    case(f"{name} infinities", f"{name} axis=1", [infs], lambda f=f: f(infs, 1), 4, 1e-6)
    case(f"{name} of nothing", f"{name} axis=0", [T.zeros([0, 3])], lambda f=f: f(T.zeros([0, 3]), 0))
case("cumsum", "cumsum axis=1", [rand(SHAPE)], lambda: T.cumsum(rand(SHAPE), 1), 4, 1e-6)

# Matrices.
for a, b in (([3, 4], [4, 5]), ([4], [4]), ([4], [4, 5]), ([3, 4], [4]), ([2, 3, 4], [4, 5]), ([2, 1, 3, 4], [5, 4, 2]), ([2, 3, 4], [2, 4, 5]),
             ([0, 4], [4, 5]), ([3, 0], [0, 5]), ([3, 4], [3, 4]), ([2, 3, 4], [3, 4, 5])):
    for d in (T.float32, T.float64, T.bfloat16, T.int32):
        x, y = rand(a, d, 1), rand(b, d, 2)
        near = {T.float32: 2e-5, T.float64: 1e-13}.get(d, 0.0)
        case(f"matmul {a} {b} {NAMES[d]}", "matmul", [x, y], lambda x=x, y=y: x @ y, 1 if d == T.bfloat16 else 0, near)

# Convolutions and pools.
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
for rank, size in ((1, [11]), (2, [9, 8]), (3, [6, 5, 7])):
    for n, c, k, g in ((2, 4, 6, 1), (1, 4, 8, 2), (1, 4, 4, 4)):
        for window in (1, 2, 3):
            for stride, padding, dilation in ((1, 0, 1), (1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 0, 1)):
                x, w, b = rand([n, c] + size, seed=1), rand([k, c // g] + [window] * rank, seed=2), rand([k], seed=3)
                words = f"conv stride={stride} padding={padding} dilation={dilation} groups={g}"
                case(f"{words} {rank}d {window} {n},{c},{k}", words, [x, w, b],
                     lambda r=rank, x=x, w=w, b=b, s=stride, p=padding, d=dilation, g=g: CONV[r](x, w, b, s, p, d, g), 0, 2e-4)
for d in (T.float64, T.bfloat16, T.float16):
    x, w = rand([1, 3, 8, 8], d, 1), rand([4, 3, 3, 3], d, 2)
    case(f"conv {NAMES[d]}", "conv padding=1", [x, w], lambda x=x, w=w: F.conv2d(x, w, padding=1), 2, {T.float64: 1e-12, T.bfloat16: 0.3, T.float16: 0.05}[d])
case("conv of no batch", "conv padding=1", [T.zeros([0, 3, 8, 8]), rand([4, 3, 3, 3])], lambda: F.conv2d(T.zeros([0, 3, 8, 8]), rand([4, 3, 3, 3]), padding=1))
case("conv groups 3", "conv groups=3", [rand([1, 4, 8, 8]), rand([6, 1, 3, 3])], lambda: F.conv2d(rand([1, 4, 8, 8]), rand([6, 1, 3, 3]), groups=3))
case("conv channels", "conv", [rand([1, 4, 8, 8]), rand([6, 3, 3, 3])], lambda: F.conv2d(rand([1, 4, 8, 8]), rand([6, 3, 3, 3])))
case("conv window too large", "conv", [rand([1, 4, 2, 2]), rand([6, 4, 3, 3])], lambda: F.conv2d(rand([1, 4, 2, 2]), rand([6, 4, 3, 3])))
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
for rank, size in ((1, [13]), (2, [9, 10]), (3, [5, 6, 7])):
    for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (4, 3, 2)):
        for ceil in (0, 1):
            words = f"kernel={','.join([str(kernel)] * rank)} stride={stride} padding={padding} ceil={ceil}"
            for dilation in (1, 2):
                x = rand([2, 3] + size)
                case(f"max_pool {words} dilation={dilation} {rank}d", f"max_pool {words} dilation={dilation}", [x],
                     lambda r=rank, x=x, k=kernel, s=stride, p=padding, c=ceil, d=dilation: MAX[r](x, k, s, p, d, bool(c)))
            for exclude in (0, 1):
                x = rand([2, 3] + size)
                case(f"avg_pool {words} exclude_pad={exclude} {rank}d", f"avg_pool {words} exclude_pad={exclude}", [x],
                     lambda r=rank, x=x, k=kernel, s=stride, p=padding, c=ceil, e=exclude: AVG[r](x, k, s, p, bool(c), not e), 2, 1e-6)
x = nans([1, 2, 8, 8])
case("max_pool nan", "max_pool kernel=3,3 stride=2 padding=1", [x], lambda x=x: F.max_pool2d(x, 3, 2, 1))
case("max_pool padding too large", "max_pool kernel=2,2 padding=2", [rand([1, 1, 6, 6])], lambda: F.max_pool2d(rand([1, 1, 6, 6]), 2, 2, 2))

# Movement.
X = rand([2, 3, 4])
for shape in ([6, 4], [-1], [2, -1, 2], [4, 3, 2], [5, -1], [-1, -1], [0]):
    case(f"reshape {shape}", f"reshape shape={','.join(map(str, shape))}", [X], lambda s=shape: X.reshape(s))
case("reshape nothing", "reshape shape=0,7", [T.zeros([0, 3])], lambda: T.zeros([0, 3]).reshape(0, 7))
case("reshape nothing -1", "reshape shape=-1,0", [T.zeros([0, 3])], lambda: T.zeros([0, 3]).reshape(-1, 0))
for axes in ([2, 0, 1], [-1, 0, 1], [0, 0, 1], [0, 1]):
    case(f"permute {axes}", f"permute axes={','.join(map(str, axes))}", [X], lambda a=axes: X.permute(a))
case("transpose", "transpose axis=0 other=-1", [X], lambda: X.transpose(0, -1))
for shape in ([5, 2, 3, 4], [-1, 3, 4], [2, 3, 5]):
    case(f"expand {shape}", f"expand shape={','.join(map(str, shape))}", [X], lambda s=shape: X.expand(s))
case("expand ones", "expand shape=4,-1,3", [rand([1, 2, 1])], lambda: rand([1, 2, 1]).expand(4, -1, 3))
case("squeeze", "squeeze axes=0", [rand([1, 3, 1])], lambda: rand([1, 3, 1]).squeeze(0))
case("squeeze larger", "squeeze axes=1", [rand([1, 3, 1])], lambda: rand([1, 3, 1]).squeeze(1))
for a in (0, -1, 3, 4):
    case(f"unsqueeze {a}", f"unsqueeze axis={a}", [X], lambda a=a: X.unsqueeze(a))
case("flip", "flip axes=0,-1", [X], lambda: X.flip([0, -1]))
for amounts, value in (([0, 0, 1, 2, 3, 0], 0), ([0, 0, 0, 0, -1, -2], 0), ([1, 0, -1, 2, 0, 0], 7), ([0, 0, 0, 0, -3, -2], 0)):
    pairs = [amounts[i:i + 2] for i in range(0, 6, 2)]
    case(f"pad {amounts} {value}", f"pad amounts={','.join(map(str, amounts))} number={value}", [X],
         lambda p=pairs, v=value: F.pad(X, sum(reversed(p), []), value=v))
for start, stop in ((1, 3), (-2, None), (None, -1), (3, 1), (-10, 10)):
    for step in (1, 2, 3):
        words = f"axis=2 step={step}" + ("" if start is None else f" start={start}") + ("" if stop is None else f" stop={stop}")
        case(f"slice {words}", f"slice {words}", [X], lambda a=start, b=stop, s=step: X[:, :, a:b:s])
for axis in (0, -1, 1):
    case(f"stack {axis}", f"stack axis={axis}", [X, X + 1], lambda a=axis: T.stack([X, X + 1], a))
    case(f"cat {axis}", f"cat axis={axis}", [X, X + 1, X], lambda a=axis: T.cat([X, X + 1, X], a))
case("cat with nothing", "cat axis=1", [X, T.zeros([2, 0, 4])], lambda: T.cat([X, T.zeros([2, 0, 4])], 1))
case("cat of other sizes", "cat axis=0", [X, T.zeros([2, 2, 4])], lambda: T.cat([X, T.zeros([2, 2, 4])], 0))
for axis, size, step in ((2, 2, 1), (1, 3, 1), (-1, 3, 2), (0, 3, 1), (2, 4, 3)):
    case(f"unfold {axis} {size} {step}", f"unfold axis={axis} size={size} step={step}", [X], lambda a=axis, s=size, t=step: X.unfold(a, s, t))


def order(x, dtype):
    """Floats as integers in the same order, so that neighbours differ by one."""
    kind, _ = BITS[dtype]
    bits = x.contiguous().view(kind).to(T.int64)
    return T.where(bits < 0, -(bits & (2 ** (8 * x.element_size() - 1) - 1) if x.element_size() < 8 else bits - T.iinfo(T.int64).min), bits)


def difference(got, want, dtype, ulps, absolute):
    """What is wrong, or None."""
    if list(got.shape) != list(want.shape):
        return f"shape {list(got.shape)}, PyTorch's {list(want.shape)}"
    if want.numel() == 0:
        return None
    if not want.dtype.is_floating_point:
        wrong = (got != want).flatten()
    else:
        got = got.to(want.dtype)
        nan = want.isnan() | got.isnan()
        apart = (order(got, dtype) - order(want, dtype)).abs()
        near = ((got.double() - want.double()).abs() <= absolute) if absolute else T.zeros_like(nan)
        wrong = T.where(nan, want.isnan() != got.isnan(), (apart > ulps) & ~near & (got != want)).flatten()
    at = wrong.nonzero().flatten()
    if len(at) == 0:
        return None
    i = int(at[0])
    return f"{len(at)} of {want.numel()} elements, the first is {i}: {got.flatten()[i].item()}, PyTorch's {want.flatten()[i].item()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--only", default="")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    program = subprocess.Popen([args.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    bad = meant = ran = 0
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.npy")
        for name, line, inputs, expected, ulps, absolute in CASES:
            if args.only not in name:
                continue
            ran += 1
            words = [line]
            for i, x in enumerate(inputs):
                path = os.path.join(folder, f"{i}.npy")
                np.save(path, x.float().numpy() if x.dtype in (T.bfloat16, T.float16) else x.contiguous().numpy())
                words.append(f"in={path}" + (f" as={NAMES[x.dtype]}" if x.dtype in (T.bfloat16, T.float16) else ""))
            program.stdin.write(" ".join(words) + f" out={out}\n")
            program.stdin.flush()
            answer = program.stdout.readline().strip()
            try:
                want = expected()
            except (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError, NotImplementedError) as e:
                want = e
            if isinstance(want, Exception):
                wrong = None if answer.startswith("error") else f"{answer}, PyTorch refuses: {str(want).splitlines()[0]}"
            elif not answer.startswith("ok"):
                wrong = f"{answer}, PyTorch has a result"
            elif answer != f"ok {NAMES[want.dtype]}":
                wrong = f"{answer}, PyTorch's is {NAMES[want.dtype]}"
            else:
                wrong = difference(T.from_numpy(np.load(out)), want, want.dtype, ulps, absolute)
            why = next((w for start, w in DELIBERATE.items() if name.startswith(start)), None)
            if wrong and why:
                meant += 1
            elif wrong:
                bad += 1
                print(f"{name}: {wrong}")
            if args.verbose and not wrong:
                print(f"{name}: agrees")
    program.stdin.close()
    program.wait()
    print(f"{ran} cases: {ran - bad - meant} agree, {meant} differ as documented, {bad} differ (torch {T.__version__})")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
