#!/usr/bin/env python3
"""Whether the loops that multiply keep everything in registers.

    cargo build --release
    python3 bench/spills.py

compiles the layers of layers.json as `auto` decides, with each C compiler and with vectors of each width, disassembles
what the compiler made, and counts in the innermost loops that sum products the vectors that are stored to the stack
and loaded from it. Exits with 1 where there are any. A loop sums products where most of its fused multiply-adds go to
registers that nothing else in the loop writes; a transform, which has more values at a time than there are registers,
writes its registers anew. Needs objdump, and a processor of the x86 family.
"""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

import peers

# Fused multiply-adds of a loop that is looked at.
LEAST = 8
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
# What an instruction writes is its last operand.
VECTOR = re.compile(r"%[xyz]mm(\d+)(?:\{%k\d\})?(?:\{z\})?$")
STACK = r"-?(?:0x[0-9a-f]+)?\(%rsp[^)]*\)"
STORE = re.compile(r"^%[xyz]mm\d+,\s*" + STACK)
LOAD = re.compile(r"(?:^|,)" + STACK + r"(?:\{1to\d+\})?,.*%[xyz]mm\d+")


def functions(text):
    """Names and instructions (address, mnemonic, operands) of a disassembly."""
    name, found = None, {}
    for line in text.splitlines():
        if m := FUNCTION.match(line):
            name = m[1]
            found[name] = []
        elif name and (m := INSTRUCTION.match(line)):
            found[name].append((int(m[1], 16), m[2], m[3]))
    return found


def innermost(code):
    """The loops that have no other loop inside: what lies between a jump backwards and where it goes."""
    at = {address: i for i, (address, _, _) in enumerate(code)}
    spans = set()
    for i, (_, op, operands) in enumerate(code):
        target = re.match(r"([0-9a-f]+)\b", operands) if op.startswith("j") else None
        start = at.get(int(target[1], 16)) if target else None
        if start is not None and start <= i:
            spans.add((start, i))
    return [code[a:b + 1] for a, b in sorted(spans)
            if not any((c, d) != (a, b) and a <= c and d <= b for c, d in spans)]


def sums_products(loop):
    """Whether registers carry sums from one iteration to the next."""
    written = [(op.startswith("vfmadd"), VECTOR.search(operands)) for _, op, operands in loop if op.startswith("v")]
    others = {m[1] for fused, m in written if m and not fused}
    sums = [m[1] for fused, m in written if m and fused]
    return len(sums) >= LEAST and 2 * sum(r not in others for r in sums) > len(sums)


def count(library):
    """Loops of a library that sum products: function, multiply-adds, vectors stored to the stack, loaded from it."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True,
                          check=True).stdout
    for name, code in functions(text).items():
        for loop in innermost(code):
            fused = sum(op.startswith("vfmadd") for _, op, _ in loop)
            if sums_products(loop):
                stores = sum(op.startswith("vmov") and bool(STORE.match(operands)) for _, op, operands in loop)
                loads = sum(op.startswith("v") and bool(LOAD.search(operands)) for _, op, operands in loop)
                yield name, fused, stores, loads


def kernels(binary, layer, cc, width):
    """The loops of a layer's kernels that sum products."""
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, WINOGRAPH_CACHE_DIR=folder, WINOGRAPH_CC=cc, WINOGRAPH_VECTOR_BYTES=str(width))
        subprocess.run([binary, "bench", *peers.job(layer, "--algo", "auto"), "--runs", "1", "--json"], env=env,
                       stdout=subprocess.DEVNULL, check=True)
        return [found for library in sorted(glob.glob(os.path.join(folder, "*.so"))) for found in count(library)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(peers.HERE), "target")
    parser.add_argument("--binary", default=os.path.join(target, "release", "winograph"))
    parser.add_argument("--layers", default="3x3", help="list of 3x3, more, all, or names of layers; no matmuls")
    parser.add_argument("--cc", action="append", help="C compiler; several are tried [clang and gcc, if there]")
    parser.add_argument("--vector-bytes", action="append", type=int, choices=(32, 64), help="[32 and 64]")
    args = parser.parse_args()
    if not shutil.which("objdump"):
        sys.exit("objdump is not there: install binutils")
    compilers = args.cc or [cc for cc in ("clang", "gcc") if shutil.which(cc)]
    spilled = seen = 0
    for layer in peers.layers(args.layers.split(",")):
        if "matmul" in layer:
            continue
        for cc in compilers:
            for width in args.vector_bytes or (32, 64):
                loops = kernels(args.binary, layer, cc, width)
                seen += len(loops)
                for name, fused, stores, loads in loops:
                    spilled += bool(stores or loads)
                    print(f"{layer['name']:12} {cc:6} {width:3} {name:34} {fused:4} multiply-adds, {stores:3} stored "
                          f"to the stack, {loads:3} loaded", flush=True)
                if not loops:
                    print(f"{layer['name']:12} {cc:6} {width:3} has no loop of sums of products", flush=True)
    print(f"{spilled} of {seen} loops use the stack")
    sys.exit(spilled > 0 or seen == 0)


if __name__ == "__main__":
    main()
