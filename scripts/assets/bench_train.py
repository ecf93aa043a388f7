"""Runs both sides of scripts/bench-train.sh in turns and prints the table.

usage: bench_train.py BENCH OUT TURNS quick|no [ROW,ROW...]
Leaves OUT/bench-train.json and OUT/bench-train.md.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

bench, out, turns, quick, wanted = sys.argv[1:6]
turns, quick, wanted = int(turns), quick == "yes", [name for name in wanted.split(",") if name]
torch_side = str(pathlib.Path(__file__).with_name("bench_torch.py"))
cores = len(os.sched_getaffinity(0))
steps = 4 if quick else 8
new = 24 if quick else 48
count = 8 if quick else 32

# name, what is compared, must, target, folder, command, ours, theirs
ROWS = [
    ("lora-1", "LoRA, one worker / one thread", 1.25, 1.4, "big", "train",
     dict(steps=steps, workers=1), dict(steps=steps, threads=1)),
    ("lora-all", f"LoRA, {cores} workers / best thread count", 1.25, 1.4, "big", "train",
     dict(steps=steps, workers=cores), dict(steps=steps, threads="best")),
    ("lora-1-equal", "same, loss on every token: both compute logits at all positions", None, None, "big", "train",
     dict(steps=steps, workers=1, targets="all"), dict(steps=steps, threads=1, targets="all")),
    ("lora-1-targets", "same, PyTorch too computes logits at targets only", None, None, "big", "train",
     dict(steps=steps, workers=1), dict(steps=steps, threads=1, logits="targets")),
    ("lora-1-mixed", "LoRA, rows of 24 to 128 tokens: PyTorch pads, we pack", None, None, "big", "train",
     dict(steps=steps, workers=1, rows="mixed"), dict(steps=steps, threads=1, rows="mixed")),
    ("lora-1-recompute", "LoRA with activations computed again / PyTorch without", None, None, "big", "train",
     dict(steps=steps, workers=1, recompute="yes"), dict(steps=steps, threads=1)),
    ("full-1", "all weights of the shipped model, one worker / one thread", 1.25, 2.0, "small", "train",
     dict(method="full", steps=10 * steps, workers=1, shard=512), dict(method="full", steps=10 * steps, threads=1)),
    ("full-all", f"all weights of the shipped model, {cores} workers / best thread count", 1.25, 2.0, "small", "train",
     dict(method="full", steps=10 * steps, workers=cores), dict(method="full", steps=10 * steps, threads="best")),
    ("eval-1", "evaluation, one worker / one thread", 1.25, 1.5, "big", "eval",
     dict(count=count, workers=1), dict(count=count, threads=1)),
    ("eval-all", f"evaluation, {cores} workers / best thread count", 1.25, 1.5, "big", "eval",
     dict(count=count, workers=cores), dict(count=count, threads="best")),
    ("eval-1-equal", "evaluation of every token: both compute logits at all positions", None, None, "big", "eval",
     dict(count=count, workers=1, targets="all"), dict(count=count, threads=1, targets="all")),
    ("generate-16", "greedy generation, batch 16", 2.0, 3.0, "big", "generate",
     dict(batch=16, new=new, workers=cores), dict(batch=16, new=new, threads="best")),
    ("generate-1", "greedy generation, batch 1", 1.2, 3.0, "big", "generate",
     dict(batch=1, new=new, workers=cores), dict(batch=1, new=new, threads="best")),
]


def run(program, command, folder, keys):
    words = [f"{key}={value}" for key, value in keys.items()]
    done = subprocess.run([*program, command, f"{out}/{folder}", *words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join([*program, command, folder, *words])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(command, folder, keys):
    return run([bench], command, folder, keys)


def theirs(command, folder, keys):
    return run([sys.executable, "-W", "ignore", torch_side], command, folder, keys)


def best_threads(command, folder, keys):
    speed = {}
    for threads in range(1, cores + 1):
        speed[threads] = theirs(command, folder, {**keys, "threads": threads})["tokens_per_s"]
    return max(speed, key=speed.get)


def measure(row):
    name, what, must, target, folder, command, our_keys, their_keys = row
    if their_keys["threads"] == "best":
        their_keys = {**their_keys, "threads": best_threads(command, folder, their_keys)}
    pairs = [(ours(command, folder, our_keys), theirs(command, folder, their_keys)) for _ in range(turns)]
    ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs]
    cpu_ratios = [a["tokens_per_cpu_s"] / b["tokens_per_cpu_s"] for a, b in pairs]
    middle = lambda side: statistics.median(pair[side]["tokens_per_s"] for pair in pairs)
    memory = [max(pair[side]["peak_mb"] for pair in pairs) for side in (0, 1)]
    found = dict(row=name, what=what, ours=round(middle(0), 1), torch=round(middle(1), 1),
                 threads=their_keys["threads"], ratio=round(statistics.median(ratios), 2),
                 cpu_ratio=round(statistics.median(cpu_ratios), 2), ratios=[round(ratio, 3) for ratio in ratios], must=must, target=target,
                 ours_mb=memory[0], torch_mb=memory[1], memory_ratio=round(memory[0] / memory[1], 2))
    a, b = pairs[0]
    if "losses" in a:
        found["loss_gap"] = max(abs(x - y) for x, y in zip(a["losses"], b["losses"]))
    if "loss" in a:
        found["loss_gap"] = abs(a["loss"] - b["loss"])
    if "first" in a:
        same = sum(1 for x, y in zip(a["first"], b["first"]) if x == y)
        found["same_tokens"] = f"{same}/{len(a['first'])}"
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def losses():
    keys = dict(steps=10 if quick else 50, rows="mixed")
    a = ours("train", "big", {**keys, "workers": cores})["losses"]
    b = theirs("train", "big", {**keys, "threads": cores})["losses"]
    gap = max(abs(x - y) for x, y in zip(a, b))
    found = dict(row="loss-50", what=f"largest loss difference over {len(a)} steps", gap=gap, must=1e-3,
                 first=a[0], last=a[-1], torch_last=b[-1])
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


results = [measure(row) for row in ROWS if not wanted or row[0] in wanted]
curve = losses() if not wanted or "loss-50" in wanted else None
table = ["| row | what | ours tok/s | PyTorch tok/s (threads) | ratio | by processor time | must | target | memory ours / PyTorch MB | ratio |",
         "|---|---|---|---|---|---|---|---|---|---|"]
for r in results:
    table.append(f"| {r['row']} | {r['what']} | {r['ours']} | {r['torch']} ({r['threads']}) | {r['ratio']}× | {r['cpu_ratio']}× "
                 f"| {r['must'] or ''} | {r['target'] or ''} | {r['ours_mb']} / {r['torch_mb']} | {r['memory_ratio']}× |")
if curve:
    table.append(f"\n{curve['what']}: {curve['gap']:.2e} (must be within 1e-3; loss {curve['first']:.4f} → {curve['last']:.4f})")
text = "\n".join(table)
pathlib.Path(out, "bench-train.json").write_text(json.dumps(dict(cores=cores, turns=turns, rows=results, losses=curve), indent=1))
pathlib.Path(out, "bench-train.md").write_text(text + "\n")
print(text)
