"""Generated convolutions beside ones that are written by hand, on this machine: how much intrinsics would still give.

    cargo build --release
    python3 bench/prototype.py --threads 2,1

builds prototype.c (needs AVX-512, and clang or another C compiler as $CC), which does what the best hand-written kernels that we
know of do, tries its own blocks for each layer, and takes turns with Winograph's `auto`: F(4,3) by hand, and F(2,3) for
pictures of 8 x 8 and smaller, of which the faster one counts; then the same with results that are stored past the caches.
Prints medians in milliseconds and, as a median of the rounds with the least and the greatest, how many times as long the
hand-written one takes: 0.9 is a tenth behind it.
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
# Of results by hand: in the caches, or past them.
STORES = ("kept", "past")


def build(folder):
    binary = os.path.join(folder, "prototype")
    source = os.path.join(peers.HERE, "prototype.c")
    compiler = os.environ.get("CC", "clang")
    subprocess.run([compiler, "-O3", "-march=native", "-pthread", source, "-o", binary, "-lm"], check=True)
    return binary


def by_hand(binary, layer, tile, threads, stores):
    sizes = [layer[key] for key in "chwk"]
    process = peers.Process(f"F({tile},3) {stores}", threads, [binary, *map(str, [*sizes, tile, threads, stores])])
    about = process.answer()
    if not about.get("max_error", math.inf) < MOST_ERROR:
        process.end()
        sys.exit(f"{layer['name']}: {process.name} is off: {about}")
    return process, about


def measure(ours, binary, layer, args, threads):
    has, about_ours = ours.prepare(layer)
    if not has:
        return {"layer": layer["name"], "error": about_ours.get("error")}
    tiles = [4, 2] if max(layer["h"], layer["w"]) <= 8 else [4]
    hands = {stores: [by_hand(binary, layer, tile, threads, stores) for tile in tiles] for stores in STORES}
    processes = [p for some in hands.values() for p, _ in some]
    ways = [("ours", lambda: ours.time(args.seconds)["median"])]
    ways += [(p.name, lambda p=p: p.ask(args.seconds)["ms"]) for p in processes]
    times = {name: [] for name, _ in ways}
    for turn in range(args.rounds):
        for name, ask in ways[turn % len(ways):] + ways[:turn % len(ways)]:
            times[name].append(ask())
    for process in processes:
        process.end()
    best = {}
    for stores, some in hands.items():
        process, about = min(some, key=lambda hand: statistics.median(times[hand[0].name]))
        ratios = sorted(hand / own for hand, own in zip(times[process.name], times["ours"]))
        best[stores] = {"name": process.name, "plan": about["plan"], "ms": statistics.median(times[process.name]),
                        "ratio": statistics.median(ratios), "spread": [ratios[0], ratios[-1]]}
    return {"layer": layer["name"], "threads": threads, "tile": about_ours.get("tile") or "direct", "times": times,
            "ms": statistics.median(times["ours"]), "by_hand": best}


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
            title = "".join(f" {'by hand, ' + stores:>14}  times as long   " for stores in STORES)
            print(f"{threads} thread{'s' if threads > 1 else ''}\n{'layer':12} {'ms':>8}{title}", flush=True)
            found = {stores: [] for stores in STORES}
            for layer in drawn:
                r = measure(ours, binary, layer, args, threads)
                results.append(r)
                if "error" in r:
                    print(f"{r['layer']:12} {r['error']}")
                    continue
                line = f"{r['layer']:12} {r['ms']:8.3f}"
                for stores, hand in r["by_hand"].items():
                    found[stores].append(hand["ratio"])
                    line += f" {hand['ms']:14.3f}  {hand['ratio']:.2f} ({hand['spread'][0]:.2f}-{hand['spread'][1]:.2f})"
                plans = "; ".join(f"{hand['name']}: {hand['plan']}" for hand in r["by_hand"].values())
                print(f"{line}  {r['tile']}; {plans}", flush=True)
            ours.end()
            for stores, some in found.items():
                if some:
                    mean = math.exp(statistics.mean(map(math.log, some)))
                    print(f"results {stores}: geometric mean {mean:.2f}, least {min(some):.2f}", flush=True)
            print()
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"machine": peers.machine(), "results": results}, f, indent=1)


if __name__ == "__main__":
    main()
