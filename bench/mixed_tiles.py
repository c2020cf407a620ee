"""Whether tiles of several sizes on an axis are faster than tiles of one size whose last ones are padded.

    cargo build --release
    python3 bench/mixed_tiles.py

times layers of 14 x 14 and 7 x 7 for several batches: F(4) with padded tiles, each mix that is named, and what `auto` makes, in
turns in one process. Prints how long each takes over the padded tiles (median of the rounds and their range), with what the
cost model estimates.
"""
import argparse
import json
import os
import re
import statistics

import peers

MIXES = {14: ["4+2", "4,4+2", "4+2,4"], 7: ["4+3", "4,4+3", "4+3,4"]}


def measure(process, layer, args):
    ways = {"4": ["--algo", "graph", "--tile", "4"]}
    rest = layer["h"] % 4 or 4
    usual = [f"4+{max(rest, 2)}"] if rest < 4 else []
    mixes = args.mixes.split() if args.mixes else MIXES.get(layer["h"], usual)
    ways |= {mix: ["--algo", "graph", "--tile", mix, "--tolerance", str(args.tolerance)] for mix in mixes}
    ways["auto"] = ["--algo", "auto", "--tolerance", str(args.tolerance)]
    said = process.ask({"prepare": [peers.job(layer, *w) for w in ways.values()]})
    if "prepared" not in said:
        return {"layer": layer, "error": said.get("error")}
    rows = {name: {"reason": p["reason"], "tile": p["tile"], "error": p["max_error"], "ms": []}
            for name, p in zip(ways, said["prepared"]) if p["applied"]}
    numbers = {name: i for i, name in enumerate(ways) if name in rows}
    times, error = peers.take_turns(process, numbers, args.rounds, args.seconds)
    if error:
        return {"layer": layer, "error": error}
    for name, row in rows.items():
        row["ms"] = times[name]
        ratios = sorted(a / b for a, b in zip(row["ms"], rows["4"]["ms"]))
        row |= {"median": statistics.median(row["ms"]), "ratio": statistics.median(ratios), "range": [ratios[0], ratios[-1]]}
        found = re.search(r"([0-9.]+) of the products and ([0-9.]+) of the estimated cost", row["reason"])
        row["estimate"] = float(found[2]) if found else None
    return {"layer": layer, "ways": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(peers.HERE), "target")
    parser.add_argument("--binary", default=os.path.join(target, "release", "winograph"))
    parser.add_argument("--layers", default="res4,vgg5.2,res5")
    parser.add_argument("--shapes", help="channels and rows, as 64x14,128x7, in place of layers")
    parser.add_argument("--batches", default="1,8,32,64")
    parser.add_argument("--mixes", help="tiles in place of the usual ones, with blanks between them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="time of a turn")
    parser.add_argument("--tolerance", type=float, default=3.0, help="that of the compiler [3]")
    parser.add_argument("--json", help="file for all figures")
    args = parser.parse_args()
    layers = peers.layers(args.layers.split(","))
    if args.shapes:
        sizes = [tuple(map(int, shape.split("x"))) for shape in args.shapes.split(",")]
        layers = [{"name": f"{c}x{h}", "c": c, "h": h, "w": h, "k": c} for c, h in sizes]
    results = []
    process = peers.Winograph(args.binary, "winograph", args.threads, {})
    try:
        for n in map(int, args.batches.split(",")):
            for layer in layers:
                found = measure(process, dict(layer, n=n), args)
                results.append(found)
                title = f"{layer['name']:8} N={n:<3}"
                if "error" in found:
                    print(f"{title} {found['error']}", flush=True)
                    continue
                for name, row in found["ways"].items():
                    low, high = row["range"]
                    estimate = f"{row['estimate']:.2f}" if row["estimate"] else "-"
                    print(f"{title} {name:7} {row['median']:8.3f} ms {row['ratio']:5.2f} ({low:.2f}-{high:.2f}) "
                          f"estimate {estimate:5} tile {row['tile'] or 'direct'}", flush=True)
    finally:
        process.end()
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"machine": peers.machine(), "threads": args.threads, "results": results}, f, indent=1)


if __name__ == "__main__":
    main()
