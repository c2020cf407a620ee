"""Generated convolutions beside ones that are written by hand, on this machine: how much intrinsics would still give.

    cargo build --release
    python3 bench/prototype.py --threads 2,1

builds prototype.c (needs AVX-512, and clang or another C compiler as $CC), which does what the best hand-written kernels that we
know of do, tries its own blocks for each layer, and takes turns with Winograph's `auto`: F(4,3) by hand, and F(2,3) for
pictures of 8 x 8 and smaller, of which the faster one counts. Prints medians in milliseconds and, as a median of the
rounds with the least and the greatest, how many times as long the hand-written one takes: 0.9 is a tenth behind it.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

import peers

# Largest error over the outputs' root mean square that is rounding: F(4,3) with the points 0, 1, -1, 2, -2 and 512 channels has 2e-5.
MOST_ERROR = 1e-4


def build(folder):
    binary = os.path.join(folder, "prototype")
    source = os.path.join(peers.HERE, "prototype.c")
    compiler = os.environ.get("CC", "clang")
    subprocess.run([compiler, "-O3", "-march=native", "-pthread", source, "-o", binary, "-lm"], check=True)
    return binary


def by_hand(binary, layer, tile, threads):
    sizes = [layer[key] for key in "chwk"]
    process = peers.Process(f"F({tile},3) by hand", threads, [binary, *map(str, [*sizes, tile, threads])])
    about = process.answer()
    if not about.get("max_error", math.inf) < MOST_ERROR:
        process.end()
        sys.exit(f"{layer['name']}: {process.name} is off: {about}")
    return process, about


def measure(ours, binary, layer, args, threads):
    has, about = ours.prepare(layer)
    if not has:
        return {"layer": layer["name"], "error": about.get("error")}
    tiles = [4, 2] if max(layer["h"], layer["w"]) <= 8 else [4]
    hands = [by_hand(binary, layer, tile, threads) for tile in tiles]
    times = {"ours": [], **{p.name: [] for p, _ in hands}}
    ways = [("ours", lambda: ours.time(args.seconds)["median"])]
    ways += [(p.name, lambda p=p: p.ask(args.seconds)["ms"]) for p, _ in hands]
    for turn in range(args.rounds):
        for name, ask in ways[turn % len(ways):] + ways[:turn % len(ways)]:
            times[name].append(ask())
    for process, _ in hands:
        process.end()
    best = min((p.name for p, _ in hands), key=lambda name: statistics.median(times[name]))
    ratios = sorted(hand / own for hand, own in zip(times[best], times["ours"]))
    return {"layer": layer["name"], "threads": threads, "tile": about.get("tile") or "direct", "ms": times, "best": best,
            "plans": {p.name: a["plan"] for p, a in hands}, "ratio": statistics.median(ratios), "spread": [ratios[0], ratios[-1]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(peers.HERE), "target")
    parser.add_argument("--binary", default=os.path.join(target, "release", "winograph"))
    parser.add_argument("--layers", default="3x3", help="list of layers or of sets of them; those that are 3x3, with stride 1")
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05, help="time of a turn")
    parser.add_argument("--json", help="file for all figures")
    args = parser.parse_args()
    drawn = [layer for layer in peers.layers(args.layers.split(",")) if layer["n"] == 1 and peers.window(layer) == [3, 3]
             and layer.get("stride", 1) == 1 and layer.get("groups", 1) == 1 and layer["k"] % 16 == 0]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        binary = build(folder)
        for threads in map(int, args.threads.split(",")):
            ours = peers.Winograph(args.binary, "winograph", threads, {})
            print(f"{threads} thread{'s' if threads > 1 else ''}\n{'layer':12} {'ms':>8} {'by hand':>8}  times as long", flush=True)
            found = []
            for layer in drawn:
                r = measure(ours, binary, layer, args, threads)
                results.append(r)
                if "error" in r:
                    print(f"{r['layer']:12} {r['error']}")
                    continue
                found.append(r["ratio"])
                ms = {name: statistics.median(t) for name, t in r["ms"].items()}
                print(f"{r['layer']:12} {ms['ours']:8.3f} {ms[r['best']]:8.3f}  {r['ratio']:.2f} ({r['spread'][0]:.2f}-{r['spread'][1]:.2f})"
                      f"  {r['tile']}; {r['best']}: {r['plans'][r['best']]}", flush=True)
            ours.end()
            if found:
                mean = math.exp(statistics.mean(map(math.log, found)))
                print(f"geometric mean {mean:.2f}, least {min(found):.2f}\n", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"machine": peers.machine(), "results": results}, f, indent=1)


if __name__ == "__main__":
    main()
