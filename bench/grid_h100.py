#!/usr/bin/env python3
"""What layouts and grids by creation order cost on a GPU: measures it, and writes it into the documents.

    cargo build --release -p winograph --example gpu_rules
    python3 bench/grid_h100.py measure OUT     # where the GPU is; OUT/rules.md and OUT/ncu.csv
    python3 bench/grid_h100.py write OUT       # docs/grid-h100.md and the tables of docs/grid.md

`measure` needs NVRTC, and ncu for the counters; without ncu, or where its counters cannot be read, it says so and leaves
ncu.csv away. `write` replaces tables and leaves the text between them: read it again afterwards.
"""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/examples/gpu_rules"
ABOUT = """# Layouts and grids by creation order on a GPU, in full

As `gpu_rules` printed it (`bench/grid_h100.py`) on {}, summed up in [grid](grid.md).
"host" is the host's clock around the launches of one run and a synchronisation, "device" is device events around the same
launches, "multiply" device events around the multiplication alone; ratios are to the first row of each layer. Weights are
arguments: each run transforms them. "error" is the largest error of 4096 outputs over the root of the mean square of the
sums in f64.

"""
METRICS = ",".join(f"l1tex__t_sectors_pipe_lsu_mem_global_op_{op}.sum" for op in ("ld", "st"))


def measure(out):
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "rules.md", "w") as to:
        subprocess.run([PROGRAM], stdout=to, check=True)
    ncu = ["ncu", "--clock-control", "none", "--metrics", METRICS, "--csv", PROGRAM, "once"]
    try:
        done = subprocess.run(ncu, capture_output=True, text=True)
    except OSError as e:
        print(f"no counters: {e}")
        return
    if done.returncode != 0 or "predicted," not in done.stdout:
        print(f"no counters: ncu exited with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return
    (out / "ncu.csv").write_text(done.stdout)


def sections(text):
    """The rows of each schedule's table, as lists of cells."""
    out, rows = {}, None
    for line in text.splitlines():
        if line.startswith("### "):
            rows = out.setdefault(line[4:], [])
        elif rows is not None and line.startswith("| ") and not line.startswith("| layer"):
            rows.append([c.strip() for c in line.strip("| ").split(" | ")])
    return out


def summary(title, rows):
    """One line a layer: the first way in full, the others as ratios to it."""
    layers = {}
    for r in rows:
        layers.setdefault(r[0], []).append(r)
    ways = next([r[1] for r in of] for of in layers.values() if len(of) > 1)
    head = [f"{ways[0]}: host, device us; sectors", *ways[1:], "within 20 %?"]
    lines = [f"**{title}**", "", f"| layer | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for layer, of in layers.items():
        if of[-1][2].startswith("replaced: "):
            why = of[-1][2].removeprefix("replaced: ").removeprefix("plan does not fit the kernel: ")
            lines.append(f"| {layer} | does not fit: {why} |" + " |" * (len(head) - 1))
            continue
        sectors = int(of[0][9])
        cells = [f"{of[0][3]}, {of[0][5]}; {sectors:,}"]
        cells += [f"{r[4]}, {r[6]}; {int(r[9]) / sectors:.2f}" for r in of[1:]]
        # The graph-level form under the old rules beside the tensor-level one.
        verdict = [f"{n} {'yes' if float(of[1][at]) <= 1.2 else 'no'}" for n, at in (("host", 4), ("device", 6))]
        lines.append(f"| {layer} | {' | '.join(cells)} | {', '.join(verdict)} |")
    return "\n".join(lines) + "\n"


def replace(text, begin, end, new):
    """What is from `begin` to in front of `end` becomes `new`."""
    start = text.index(begin)
    return text[:start] + new + text[text.index(end, start):]


def write(out):
    text = (out / "rules.md").read_text()
    tables = sections(text)
    full = ROOT / "docs/grid-h100.md"
    card, body = text.split(";")[0], text.split("\n\n", 1)[1]
    rest = full.read_text()
    full.write_text(ABOUT.format(card) + body.strip() + "\n\n" + rest[rest.index("# Layers beside cuDNN") :])
    page = ROOT / "docs/grid.md"
    text = page.read_text()
    first, last = next(iter(tables)), "So scattered writes are not"
    text = replace(text, f"**{first}**", last, "\n".join(summary(*t) for t in tables.items()) + "\n")
    if (out / "ncu.csv").exists():
        run = [sys.executable, ROOT / "bench/ncu_sectors.py", out / "ncu.csv"]
        table = subprocess.run(run, stdout=subprocess.PIPE, check=True, text=True).stdout
        print(table.splitlines()[-1])
        table = table[: table.rindex("\nLargest")]
        text = replace(text, "| program | kernel | loads predicted", "\n\n", table.rstrip())
    page.write_text(text)


if len(sys.argv) != 3 or sys.argv[1] not in ("measure", "write"):
    sys.exit(__doc__)
(measure if sys.argv[1] == "measure" else write)(pathlib.Path(sys.argv[2]))
