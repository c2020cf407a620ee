#!/usr/bin/env python3
"""Sectors that ncu counted beside those that the compiler predicted, one line a kernel.

    m=l1tex__t_sectors_pipe_lsu_mem_global_op
    ncu --metrics ${m}_ld.sum,${m}_st.sum --csv target/release/examples/gpu_rules once > ncu.csv
    python3 bench/ncu_sectors.py ncu.csv

The program prints lines `predicted,...` into the same file. Loads of asynchronous copies are among those.
"""
import csv
import sys

predicted, counted, names = {}, {}, {}
for row in csv.reader(open(sys.argv[1])):
    if row and row[0] == "predicted":
        predicted[int(row[1])] = (", ".join(filter(None, row[2:5])), row[5], int(row[6]), int(row[7]))
    elif len(row) > 10 and row[0].isdigit():
        store = "_op_st." in row[-3]
        of = counted.setdefault(int(row[0]), {})
        of[store] = of.get(store, 0) + int(row[-1].replace(",", ""))
        names[int(row[0])] = row[4]

print("| program | kernel | loads predicted | counted | stores predicted | counted | difference |")
print("|---|---|---|---|---|---|---|")
worst = 0.0
for n, (program, kernel, loads, stores) in sorted(predicted.items()):
    if not names[n].endswith(kernel):
        sys.exit(f"launch {n} is {names[n]}, not {kernel}")
    got = counted[n]
    off = max(abs(got[False] / loads - 1), abs(got[True] / stores - 1))
    worst = max(worst, off)
    print(f"| {program} | {kernel} | {loads:,} | {got[False]:,} | {stores:,} | {got[True]:,} | {off:.2%} |")
print(f"\nLargest difference: {worst:.2%}")
