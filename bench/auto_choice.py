"""Whether the choice of algorithm and tile without search is a good one.

    cargo build --release
    python3 bench/auto_choice.py

draws convolution shapes at random, compiles each as `auto` decides and in every way that can be forced (the direct sum, and
Winograd with each tile), times them in turns in one process, and prints how much longer `auto` takes than the fastest
of them. A tile whose expected error the tolerance refuses is no choice of `auto`: it is timed all the same, and both are
counted, shapes that are good beside what the tolerance admits and beside everything that can be forced. The aim: at most
1.15 times the fastest that is admitted on at least 90 % of 60 shapes. Exits with 1 where that does not hold.

    python3 bench/auto_choice.py --layers windows      named layers, as peers.py has them
"""
import argparse
import json
import os
import random
import statistics
import sys

import peers

TILES = (2, 3, 4, 6)


def shape(rng):
    """Sizes of a convolution as networks have them, between 2^20 and 2^32 operations."""
    while True:
        r = rng.choice([1, 3, 3, 3, 3, 5, 7])
        stride = rng.choice([1, 1, 1, 1, 2])
        size = rng.choice([7, 8, 13, 14, 16, 20, 28, 32, 40, 56, 64, 80, 112, 128, 224])
        c = rng.choice([3, 8, 16, 24, 32, 48, 64, 96, 128, 144, 192, 256, 384, 512])
        k = rng.choice([8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512])
        groups = rng.choice([1, 1, 1, 1, 1, 2, 4, c])
        if groups == c:
            k = c
        layer = {"n": rng.choice([1, 1, 1, 2, 4]), "c": c, "h": size, "w": rng.choice([size, size, size + size // 3]),
                 "k": k, "r": r, "stride": stride, "groups": groups}
        if c % groups == 0 and k % groups == 0 and 1 << 20 <= peers.flops(layer) <= 1 << 32:
            return layer


def choices(layer):
    """The ways that can be forced."""
    found = {"direct": ["--algo", "direct"]}
    if max(peers.window(layer)) > 1 and layer.get("stride", 1) == 1:
        found |= {f"F({m})": ["--algo", "graph", "--tile", str(m)] for m in TILES}
    return found


def measure(process, layer, args):
    forced = choices(layer)
    # A tile that is asked for may have any error unless there is a tolerance.
    limits = {n: [*w, "--tolerance", str(args.tolerance)] for n, w in forced.items()}
    said = process.ask({"prepare": [peers.job(layer, *w) for w in limits.values()]})
    if "prepared" not in said:
        return {"layer": layer, "error": said.get("error")}
    admitted = {n for n, p in zip(limits, said["prepared"]) if p["applied"]}
    ways = {"auto": ["--algo", "auto", "--tolerance", str(args.tolerance)], **forced}
    said = process.ask({"prepare": [peers.job(layer, *w) for w in ways.values()]})
    if "prepared" not in said:
        return {"layer": layer, "error": said.get("error")}
    numbers = {name: i for i, (name, p) in enumerate(zip(ways, said["prepared"])) if p["applied"]}
    times, error = peers.take_turns(process, numbers, args.rounds, args.seconds)
    if error:
        return {"layer": layer, "error": error}
    medians = {n: statistics.median(t) for n, t in times.items()}
    fastest = min((n for n in times if n != "auto"), key=medians.get)
    best = min((n for n in times if n in admitted), key=medians.get)
    ratios = sorted(a / b for a, b in zip(times["auto"], times[best]))
    first = said["prepared"][0]
    return {"layer": layer, "chosen": first["tile"] or "direct", "reason": first["reason"], "best": best, "ms": medians,
            "ratio": statistics.median(ratios), "spread": [ratios[0], ratios[-1]], "admitted": sorted(admitted),
            "fastest": fastest,
            "ratio_to_fastest": statistics.median(a / b for a, b in zip(times["auto"], times[fastest])),
            "errors": {n: p["max_error"] for n, p in zip(ways, said["prepared"]) if p["applied"]}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(peers.HERE), "target")
    parser.add_argument("--binary", default=os.path.join(target, "release", "winograph"))
    parser.add_argument("--shapes", type=int, default=60)
    parser.add_argument("--layers", help="list of layers or of sets of them, instead of shapes drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.03, help="time of a turn")
    parser.add_argument("--tolerance", type=float, default=3.0, help="that of `auto` [3, the compiler's default]")
    parser.add_argument("--first", type=int, default=1, help="number of the first shape that is measured")
    parser.add_argument("--only", help="numbers of the shapes that are measured")
    parser.add_argument("--limit", type=float, default=1.15, help="greatest ratio that is good")
    parser.add_argument("--share", type=float, default=0.9, help="least share of shapes that have to be good")
    parser.add_argument("--json", help="file for all figures")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    if args.layers:
        drawn = [layer for layer in peers.layers(args.layers.split(",")) if "matmul" not in layer]
    else:
        drawn = [shape(rng) for _ in range(args.shapes)]
    results = []
    process = peers.Winograph(args.binary, "winograph", args.threads, {})
    try:
        for number, layer in enumerate(drawn):
            if number + 1 < args.first or args.only and str(number + 1) not in args.only.split(","):
                continue
            found = measure(process, layer, args)
            results.append(found)
            title = layer.get("name") or " ".join(f"{k}{v}" for k, v in layer.items())
            if "error" in found:
                print(f"{number + 1:3} {title}: {found['error']}", flush=True)
                continue
            refused = {n for n in found["ms"] if n != "auto" and n not in found["admitted"]}
            ms = "  ".join(f"{n}{' (refused)' if n in refused else ''} {t:.3f}" for n, t in found["ms"].items())
            print(f"{number + 1:3} {title:46} {found['ratio']:5.2f} ({found['spread'][0]:.2f}-{found['spread'][1]:.2f}) "
                  f"chose {found['chosen']}, best {found['best']}; ms: {ms}", flush=True)
    finally:
        process.end()
    good = sum(r.get("ratio", float("inf")) <= args.limit for r in results)
    of_all = sum(r.get("ratio_to_fastest", float("inf")) <= args.limit for r in results)
    print(f"{good} of {len(results)} shapes within {args.limit} of the fastest forced choice that tolerance "
          f"{args.tolerance:g} admits, {of_all} of the fastest whatever its error")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"machine": peers.machine(), "threads": args.threads, "results": results}, f, indent=1)
    sys.exit(good < args.share * len(results))


if __name__ == "__main__":
    main()
