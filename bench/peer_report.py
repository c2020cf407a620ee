"""Tables of peers.py, and its chart and that of models.py."""
import math
import statistics
import textwrap
from html import escape

# Library of an entry, its name in the chart, and its colours in the light and in the dark.
GROUPS = [
    ("winograph", "Winograph", "#c2410c", "#fb923c"),
    ("ncnn", "ncnn", "#1d4ed8", "#60a5fa"),
    ("onnxruntime", "ONNX Runtime", "#0f766e", "#2dd4bf"),
    ("openvino", "OpenVINO", "#7c3aed", "#a78bfa"),
    ("torch", "PyTorch", "#64748b", "#94a3b8"),
]


def ours(result):
    """Winograph's entries."""
    return [n for n in result["times"] if n.startswith("winograph")]


def ms(result, name):
    """Median over the rounds."""
    return statistics.median(t["median"] for t in result["times"][name])


def best_peer(result):
    peers = [n for n in result["times"] if not n.startswith("winograph")]
    return min(peers, key=lambda n: ms(result, n), default=None)


def ratios(result, name, peer):
    """How many times longer the peer takes, round by round, in ascending order."""
    return sorted(p["median"] / o["median"] for p, o in zip(result["times"][peer], result["times"][name]))


def disturbed(result, name):
    """Whether other programs kept its threads waiting in some round's every call."""
    return any(t["disturbed"] == 2 for t in result["times"][name])


def heading(threads):
    title = f"\n{threads} thread{'s' if threads > 1 else ''}"
    return f"{title}\n{'layer':15} {'':24} {'ms':>9} {'GFLOP/s':>8}   {'best peer':15} {'ms':>9} {'times faster':>13}"


def line(result):
    rows = []
    peer = best_peer(result)
    for name in ours(result):
        t = ms(result, name)
        mark = "~" if disturbed(result, name) else " "
        row = f"{result['name']:15} {name:24} {t:9.3f}{mark}{result['flops'] / t / 1e6:8.0f}"
        if peer:
            r = ratios(result, name, peer)
            mark = "~" if disturbed(result, peer) else " "
            row += f"   {peer:15} {ms(result, peer):9.3f}{mark}{statistics.median(r):6.2f} ({r[0]:.2f}-{r[-1]:.2f})"
        rows.append(row)
    rows += [f"{result['name']:15} {n}: {note}" for n, note in result["notes"].items() if isinstance(note, str)]
    return "\n".join(rows)


def means(results, threads, name, group):
    """Geometric mean, least, and number of the median ratios of a group of layers."""
    found = []
    for r in results:
        peer = best_peer(r)
        if r["threads"] == threads and r["group"] == group and name in r["times"] and peer:
            found.append(statistics.median(ratios(r, name, peer)))
    if not found:
        return None
    return math.exp(statistics.mean(map(math.log, found))), min(found), len(found)


def summary(results, threads):
    rows = []
    for name in dict.fromkeys(n for r in results for n in ours(r)):
        for group, title in (("3x3", "3x3 layers"), ("more", "other layers"), ("windows", "layers with other windows")):
            if (m := means(results, threads, name, group)) is not None:
                rows.append(f"{name}, {m[2]} {title}: {m[0]:.2f} times the best peer (geometric mean), least {m[1]:.2f}")
    rows.append("~: other programs kept its threads waiting in every call of some round" if any(
        disturbed(r, n) for r in results for n in r["times"]) else "")
    return "\n".join(rows)


def about(out):
    m = out["machine"]
    parts = [m["processor"] + (f" ({m['family']})" if m["family"] else ""), f"{m['cores']} cores", m["instructions"]]
    parts += [f"{k} {v}" for k, v in m["caches"].items()]
    return ", ".join(parts)


def markdown(out):
    """A table for each number of threads."""
    text = [about(out) + ".", "", ", ".join(f"{k} {v}" for k, v in out["versions"].items())]
    for threads in dict.fromkeys(r["threads"] for r in out["results"]):
        here = [r for r in out["results"] if r["threads"] == threads]
        names = list(dict.fromkeys(n for r in here for n in r["times"]))
        text += ["", f"{threads} thread{'s' if threads > 1 else ''}, milliseconds:", "",
                 "| layer | " + " | ".join(names) + " | times faster than the best peer |",
                 "|---|" + "---|" * (len(names) + 1)]
        for r in here:
            peer = best_peer(r)
            cells = [f"{'~' if disturbed(r, n) else ''}{ms(r, n):.3f}" if n in r["times"] else "" for n in names]
            said = ""
            if peer and ours(r):
                q = ratios(r, ours(r)[0], peer)
                said = f"{statistics.median(q):.2f} ({q[0]:.2f}-{q[-1]:.2f}), {peer}"
            text.append(f"| {r['name']} | " + " | ".join(cells) + f" | {said} |")
        text += ["", *summary(here, threads).splitlines()]
    return "\n".join(text)


def bars(result):
    """The best entry of each library and how many times faster than the best peer it is (without peers: than itself)."""
    peer = best_peer(result)
    found = []
    for prefix, title, light, dark in GROUPS:
        entries = [n for n in result["times"] if n.startswith(prefix)]
        if entries:
            t = min(ms(result, n) for n in entries)
            found.append((prefix, title, t, (ms(result, peer) if peer else t) / t))
    return found


def svg(out, what="layer by layer"):
    """Bars for each layer or model: speed over the best peer's, a panel for each number of threads."""
    counts = list(dict.fromkeys(r["threads"] for r in out["results"]))
    panel, label, bar, gap, head = 430, 118, 9, 16, 92
    about_lines = textwrap.wrap(about(out), 18 * (label + panel * len(counts)) // 100)
    foot = 27 + 13 * len(about_lines)
    by_layer = {}
    for r in out["results"]:
        by_layer.setdefault(r["name"], {})[r["threads"]] = r
    most = max([1.0, *(b[3] for r in out["results"] for b in bars(r))])
    step = 0.5 if most <= 3 else 1.0
    end = math.ceil(most / step + 0.15) * step
    tall = {n: max(len(bars(r)) for r in rs.values()) * (bar + 2) + gap for n, rs in by_layer.items()}
    width, height = label + panel * len(counts) + 30, head + sum(tall.values()) + foot
    room = panel - 60
    drawn = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
             'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img">',
             f"<title>Speed over the best other library, {what}</title>", "<style>",
             ".bg{fill:#fff}.ink{fill:#1e293b}.dim{fill:#64748b}.grid{stroke:#e2e8f0}.one{stroke:#1e293b}",
             *(f".{p}{{fill:{light}}}" for p, _, light, _ in GROUPS),
             "@media (prefers-color-scheme:dark){.bg{fill:#0f172a}.ink{fill:#e2e8f0}.dim{fill:#94a3b8}"
             ".grid{stroke:#1e293b}.one{stroke:#e2e8f0}",
             *(f".{p}{{fill:{dark}}}" for p, _, _, dark in GROUPS), "}", "</style>",
             f'<rect class="bg" width="{width}" height="{height}" rx="8"/>',
             '<text class="ink" x="20" y="30" font-size="17" font-weight="600">'
             "Speed over the best other library (1.0), f32, weights prepared</text>"]
    x = 20
    for prefix, title, *_ in GROUPS:
        if any(n.startswith(prefix) for r in out["results"] for n in r["times"]):
            drawn.append(f'<rect class="{prefix}" x="{x}" y="44" width="11" height="11" rx="2"/>'
                         f'<text class="ink" x="{x + 16}" y="54" font-size="12">{title}</text>')
            x += 34 + 7 * len(title)
    for i, threads in enumerate(counts):
        left = label + i * panel
        drawn.append(f'<text class="ink" x="{left}" y="{head - 14}" font-size="13" font-weight="600">{threads} '
                     f'thread{"s" if threads > 1 else ""}</text>')
        for tick in range(int(end / step) + 1):
            at = left + room * tick * step / end
            kind = "one" if tick * step == 1 else "grid"
            drawn.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{head - 6}" y2="{height - foot}"'
                         f'{" stroke-dasharray=" + chr(34) + "3 3" + chr(34) if kind == "one" else ""}/>'
                         f'<text class="dim" x="{at:.1f}" y="{height - foot + 14}" font-size="10" text-anchor="middle">'
                         f"{tick * step:g}</text>")
        y = head
        for name, by_threads in by_layer.items():
            if i == 0:
                drawn.append(f'<text class="ink" x="{label - 10}" y="{y + (tall[name] - gap) / 2 + 4:.1f}" font-size="12" '
                             f'text-anchor="end">{escape(name)}</text>')
            for j, (prefix, title, t, speed) in enumerate(bars(by_threads[threads]) if threads in by_threads else []):
                wide, at = max(1.0, room * speed / end), y + j * (bar + 2)
                strong = ' font-weight="700"' if prefix == "winograph" else ""
                drawn.append(f'<rect class="{prefix}" x="{left}" y="{at}" width="{wide:.1f}" height="{bar}" rx="1.5">'
                             f"<title>{title}: {t:.3f} ms</title></rect>"
                             f'<text class="{"ink" if strong else "dim"}" x="{left + wide + 4:.1f}" y="{at + bar - 1}" '
                             f'font-size="9"{strong}>{speed:.2f}</text>')
            y += tall[name]
    for i, text in enumerate(about_lines):
        drawn.append(f'<text class="dim" x="20" y="{height - 9 - 13 * (len(about_lines) - 1 - i)}" font-size="10">'
                     f"{escape(text)}</text>")
    drawn.append("</svg>")
    return "\n".join(drawn)
