"""Winograph beside other libraries, in turns, in one session.

    cargo build --release
    python3 bench/peers.py

sets up ncnn, ONNX Runtime, OpenVINO and PyTorch from PyPI in a virtual environment outside of the repository, runs them
and Winograph on the layers of layers.json, more_layers.json and window_layers.json, with two threads and with one, and prints how many times
faster Winograph is than the best of the others: the median over the rounds, and the least and greatest round. Every
competitor is a process of its own that keeps its layer prepared; in each round each has its turn, and the others are
stopped meanwhile, so that no pool of threads spins beside the one that is timed. How calls are picked on a machine that
is not quiet is said in peer_worker.py. Needs Linux.

    python3 bench/peers.py --peers none --layers reference --rounds 1     Winograph alone
    python3 bench/peers.py --vector-bytes 32                              AVX2, also for those that can be told
    python3 bench/peers.py --cc clang --cc gcc                            with both C compilers
    python3 bench/peers.py --peers tract,candle                           Rust's: built from crates.io, which takes minutes
    python3 bench/peers.py --json out.json --svg out.svg --markdown out.md
"""
import argparse
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import venv

import peer_report

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ["numpy", "onnx", "ncnn", "onnxruntime", "openvino", "torch"]
# Entries of peer_worker.CALLS by library.
LIBRARIES = {
    "torch": ["torch", "torch-nhwc", "torch-prepared"],
    "onnxruntime": ["onnxruntime"],
    "openvino": ["openvino"],
    "ncnn": ["ncnn", "ncnn-direct"],
}
# Only on request: a library that cargo builds outside of the repository.
RUST = {"tract": ["tract"], "candle": ["candle"]}
# What keeps a library to AVX2. ncnn and ONNX Runtime look at the processor alone.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
CAPPED = ["torch"]


def default_venv():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "winograph-peers")


def set_up(folder, libraries):
    """A Python with the packages in it."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
    needed = [p for p in PACKAGES if p in ("numpy", "onnx") or p in libraries]
    there = subprocess.run([python, "-c", "import importlib.util, sys\n"
                            "sys.exit(not all(importlib.util.find_spec(p) for p in sys.argv[1:]))", *needed])
    if there.returncode != 0:
        print(f"installing {', '.join(needed)} into {folder}", file=sys.stderr)
        # PyPI's torch brings CUDA's libraries, 2 GB, without which it does not load; PyTorch's own index has one
        # without, and is asked first.
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if "torch" in needed:
            cpu = [*pip, "--retries", "0", "--timeout", "5", "--index-url", "https://download.pytorch.org/whl/cpu"]
            if subprocess.run([*cpu, "torch"], stderr=subprocess.DEVNULL).returncode == 0:
                needed.remove("torch")
        subprocess.run([*pip, *needed], check=True)
    return python


def build_rust_peers(folder):
    """The library of rust_peers, built with all that the processor has."""
    target = os.path.join(folder, "rust_peers")
    print(f"building tract and candle in {target}", file=sys.stderr)
    manifest = os.path.join(HERE, "rust_peers", "Cargo.toml")
    flags = dict(os.environ, RUSTFLAGS="-C target-cpu=native")
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest, "--target-dir",
                    target], check=True, env=flags)
    return os.path.join(target, "release", "libwinograph_rust_peers.so")


class Process:
    """A process that answers lines of JSON; stopped when it is not asked."""

    def __init__(self, name, threads, command, env=None):
        self.name, self.threads = name, threads
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), RAYON_NUM_THREADS=str(threads), **(env or {}))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
                                        stderr=subprocess.DEVNULL)

    def ask(self, question):
        try:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except OSError as e:
            return {"error": str(e)}
        return self.answer()

    def answer(self):
        try:
            answer = self.process.stdout.readline()
            if answer:
                os.kill(self.process.pid, signal.SIGSTOP)
                return json.loads(answer)
        except (OSError, ValueError) as e:
            return {"error": str(e)}
        return {"error": f"{self.name} has ended"}

    def end(self):
        self.process.kill()
        self.process.wait()


def take_turns(process, numbers, rounds, seconds):
    """Medians in milliseconds of the ways with these numbers in a process that serves several, round by round: they take turns, and
    who begins changes. An error instead of them where one fails."""
    times = {name: [] for name in numbers}
    for turn in range(rounds):
        order = list(numbers)
        for name in order[turn % len(order):] + order[:turn % len(order)]:
            answer = process.time(seconds, numbers[name])
            if "error" in answer:
                return times, answer["error"]
            times[name].append(answer["median"])
    return times, None


class Peer(Process):
    def __init__(self, python, name, threads, env):
        super().__init__(name, threads, [python, os.path.join(HERE, "peer_worker.py"), name, str(threads)], env)

    def prepare(self, layer):
        """Whether the layer can be timed, and what is known of it."""
        answer = self.ask({"prepare": layer})
        return bool(answer.get("has")), answer

    def time(self, seconds):
        return self.ask({"time": seconds})


class Winograph(Process):
    """`jobs` numbers what was prepared last."""

    def __init__(self, binary, name, threads, env):
        super().__init__(name, threads, [binary, "bench", "serve", "--threads", str(threads)], env)

    def prepare(self, layer, *more):
        return self.prepare_all([job(layer, *more)])

    def prepare_all(self, jobs):
        answer = self.ask({"prepare": jobs})
        if "prepared" not in answer:
            return False, answer
        for p in answer["prepared"]:
            # Standard normal inputs, weights that keep the variance near 1.
            if p["applied"] and not (p["max_error"] or 0) < 1e-3:
                return False, {"error": f"an output is off by {p['max_error']}"}
        first = answer["prepared"][0]
        return first["applied"], first if len(jobs) == 1 else answer

    def time(self, seconds, number=0):
        return self.ask({"time": number, "seconds": seconds})


def window(layer):
    """Rows and columns of the window."""
    r = layer.get("r", 3)
    return r if isinstance(r, list) else [r, r]


def job(layer, *more):
    """A layer as `bench serve` wants it."""
    if "matmul" in layer:
        return ["matmul", "--size", ",".join(map(str, layer["matmul"]))]
    r, groups = window(layer), layer.get("groups", 1)
    shapes = [layer["n"], layer["c"], layer["h"], layer["w"]], [layer["k"], layer["c"] // groups, *r]
    padding = ",".join(str(taps // 2) for taps in r)
    return ["conv", "--input", ",".join(map(str, shapes[0])), "--weight", ",".join(map(str, shapes[1])), "--padding",
            padding, "--stride", str(layer.get("stride", 1)), "--groups", str(groups), *more]


def flops(layer):
    """Operations of the direct sum."""
    if "matmul" in layer:
        return 2 * math.prod(layer["matmul"])
    r, s = window(layer), layer.get("stride", 1)
    out = [(size + 2 * (taps // 2) - taps) // s + 1 for size, taps in zip((layer["h"], layer["w"]), r)]
    return 2 * layer["n"] * layer["k"] * math.prod(out) * (layer["c"] // layer.get("groups", 1)) * math.prod(r)


def layers(which):
    """The layers of all lists, with the list's name; `which` has names of lists or of layers."""
    found = []
    for file, group in (("layers.json", "3x3"), ("more_layers.json", "more"), ("window_layers.json", "windows")):
        with open(os.path.join(HERE, file), encoding="utf-8") as f:
            found += [dict(layer, group=group) for layer in json.load(f)["layers"]]
    known = {"all", "3x3", "more", "windows"} | {layer["name"] for layer in found}
    if unknown := set(which) - known:
        sys.exit(f"--layers: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    return [layer for layer in found if {"all", layer["group"], layer["name"]} & set(which)]


def machine():
    """What the figures depend on."""
    text = subprocess.run(["lscpu"], capture_output=True, text=True, env=dict(os.environ, LC_ALL="C")).stdout
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}
    flags = fields.get("Flags", "").split()
    isa = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON"))
                if flag in flags), "SSE")
    return {
        "processor": fields.get("Model name", platform.machine()),
        "family": ", ".join(f"{k.lower()} {fields[k]}" for k in ("CPU family", "Model", "Stepping") if k in fields),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": isa + (", AMX" if "amx_tile" in flags else ""),
        "caches": {k: fields[k] for k in ("L1d cache", "L2 cache", "L3 cache") if k in fields},
        "kernel": platform.release(),
    }


def versions(python):
    if python is None:
        return {}
    code = ("import importlib.metadata as m, json\nout = {}\n"
            f"for p in {PACKAGES!r}:\n try: out[p] = m.version(p)\n except m.PackageNotFoundError: pass\n"
            "print(json.dumps(out))")
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def winographs(args, threads):
    """Winograph's processes: one for each compiler that is asked for."""
    cap = {"WINOGRAPH_VECTOR_BYTES": str(args.vector_bytes)} if args.vector_bytes else {}
    found = []
    for cc in args.cc or [None]:
        name = "winograph" if cc is None else f"winograph ({cc})"
        found.append(Winograph(args.binary, name, threads, dict(cap, **({"WINOGRAPH_CC": cc} if cc else {}))))
    return found


def run_layer(layer, processes, args):
    """Times of each process, `rounds` turns each."""
    taking, times, notes = [], {}, {}
    for p in processes:
        has, said = p.prepare(layer)
        if has:
            taking.append(p)
            times[p.name] = []
        if "error" in said:
            notes[p.name] = said["error"]
        elif isinstance(p, Winograph):
            notes[p.name] = {k: said.get(k) for k in ("reason", "tile", "kernels", "compile_ms", "max_error")}
    for turn in range(args.rounds):
        # Nobody always follows the same neighbour.
        order = taking[turn % len(taking):] + taking[:turn % len(taking)] if taking else []
        for p in order:
            answer = p.time(args.seconds)
            if "error" in answer:
                notes[p.name] = answer["error"]
            else:
                times[p.name].append(answer)
    times = {name: turns for name, turns in times.items() if len(turns) == args.rounds}
    return {"name": layer["name"], "group": layer["group"], "flops": flops(layer), "times": times, "notes": notes}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(HERE), "target")
    parser.add_argument("--binary", default=os.path.join(target, "release", "winograph"))
    parser.add_argument("--venv", default=default_venv(), help="folder of the peers' virtual environment")
    parser.add_argument("--peers", default=",".join(LIBRARIES), help="list of libraries, or none")
    parser.add_argument("--layers", default="all", help="list of 3x3, more, windows, all, or names of layers")
    parser.add_argument("--threads", default="2,1", help="numbers of threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="time of a turn")
    parser.add_argument("--vector-bytes", type=int, choices=(16, 32, 64), help="cap the width of vectors")
    parser.add_argument("--cc", action="append", help="C compiler of Winograph; several take turns")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--svg", help="file for a chart")
    parser.add_argument("--markdown", help="file for tables")
    args = parser.parse_args()
    args.peers = [] if args.peers == "none" else args.peers.split(",")
    if unknown := set(args.peers) - {*LIBRARIES, *RUST}:
        known = ", ".join([*LIBRARIES, *RUST])
        parser.error(f"--peers: unknown {', '.join(sorted(unknown))}; known are {known}")
    if args.rounds < 1 or not 0 < args.seconds <= 60:
        parser.error("--rounds has to be 1 or more, --seconds above 0 and at most 60")
    if not shutil.which(args.binary):
        parser.error(f"there is no {args.binary}: run cargo build --release, or name it with --binary")
    return args


def main():
    args = arguments()
    env = {}
    if args.vector_bytes and args.vector_bytes < 64:
        env = AVX2
        if left_out := [p for p in args.peers if p not in CAPPED]:
            print(f"left out, since they cannot be kept from wider vectors: {', '.join(left_out)}", file=sys.stderr)
        args.peers = [p for p in args.peers if p in CAPPED]
    python = set_up(args.venv, args.peers) if args.peers else None
    if set(args.peers) & set(RUST):
        env = dict(env, WINOGRAPH_RUST_PEERS=build_rust_peers(args.venv))
    chosen = layers(args.layers.split(","))
    out = {"machine": machine(), "versions": versions(python), "vector_bytes": args.vector_bytes,
           "rounds": args.rounds, "seconds": args.seconds, "results": []}
    for threads in map(int, args.threads.split(",")):
        processes = winographs(args, threads)
        try:
            processes += [Peer(python, name, threads, env) for p in args.peers for name in {**LIBRARIES, **RUST}[p]]
            print(peer_report.heading(threads), flush=True)
            for layer in chosen:
                result = dict(run_layer(layer, processes, args), threads=threads)
                out["results"].append(result)
                print(peer_report.line(result), flush=True)
        finally:
            for p in processes:
                p.end()
        print(peer_report.summary(out["results"], threads), flush=True)
    for path, text in ((args.json, json.dumps(out, indent=1)), (args.svg, peer_report.svg(out)),
                       (args.markdown, peer_report.markdown(out))):
        if path:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text + "\n")
    if not all(any(ours(name) for name in r["times"]) for r in out["results"]):
        sys.exit("Winograph did not run every layer: see the notes in the JSON")


def ours(name):
    return name.startswith("winograph")


if __name__ == "__main__":
    main()
