"""Runs both sides of scripts/bench-train.sh in turns and renders the table.

usage: bench_train.py BENCH OUT TURNS quick|no [ROW,ROW...]   measures, a file a row in OUT/rows
       bench_train.py render OUT FILE.md                     writes what OUT holds into FILE.md
"""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

BEGIN = "<!-- training: made by `scripts/bench-train.sh --render` -->"
END = "<!-- end of training -->"
cores = len(os.sched_getaffinity(0))
torch_side = str(pathlib.Path(__file__).with_name("bench_torch.py"))


def rows(quick):
    """Name, what is compared, must, target, folder, command, ours, theirs."""
    steps, new, count = (4, 24, 8) if quick else (8, 48, 32)
    lora = dict(steps=steps, workers=1), dict(steps=steps, threads=1)
    small = dict(method="full", steps=10 * steps), dict(method="full", steps=10 * steps)
    both = f"{cores} workers / best thread count"
    return [
        ("lora-1", "LoRA, one worker / one thread", 1.25, 1.4, "big", "train", *lora),
        ("lora-all", f"LoRA, {both}", 1.25, 1.4, "big", "train",
         {**lora[0], "workers": cores}, {**lora[1], "threads": "best"}),
        ("lora-1-equal", "equal work: the loss is on every token", None, None, "big", "train",
         {**lora[0], "targets": "all"}, {**lora[1], "targets": "all"}),
        ("lora-1-targets", "equal work: PyTorch, too, computes logits at targets only", None, None, "big", "train",
         lora[0], {**lora[1], "logits": "targets"}),
        ("lora-1-mixed", "LoRA, rows of 24 to 128 tokens: PyTorch pads, ours packs", None, None, "big", "train",
         {**lora[0], "rows": "mixed"}, {**lora[1], "rows": "mixed"}),
        ("lora-1-recompute", "LoRA, ours computing activations again / PyTorch keeping them", None, None, "big", "train",
         {**lora[0], "recompute": "yes"}, lora[1]),
        ("full-1", "all weights of the shipped model, one worker / one thread", 1.25, 2.0, "small", "train",
         {**small[0], "workers": 1}, {**small[1], "threads": 1}),
        ("full-all", f"all weights of the shipped model, {both}", 1.25, 2.0, "small", "train",
         {**small[0], "workers": cores}, {**small[1], "threads": "best"}),
        ("eval-1", "evaluation, one worker / one thread", 1.25, 1.5, "big", "eval",
         dict(count=count, workers=1), dict(count=count, threads=1)),
        ("eval-all", f"evaluation, {both}", 1.25, 1.5, "big", "eval",
         dict(count=count, workers=cores), dict(count=count, threads="best")),
        ("eval-1-equal", "evaluation, equal work: every token is scored", None, None, "big", "eval",
         dict(count=count, workers=1, targets="all"), dict(count=count, threads=1, targets="all")),
        ("generate-16", f"greedy generation, batch 16, {both}", 2.0, 3.0, "big", "generate",
         dict(batch=16, new=new, workers=cores), dict(batch=16, new=new, threads="best")),
        ("generate-1", f"greedy generation, batch 1, {both}", 1.2, 3.0, "big", "generate",
         dict(batch=1, new=new, workers=cores), dict(batch=1, new=new, threads="best")),
    ]


class Bench:
    """The two programs and where their files are."""

    def __init__(self, bench, out, turns, quick):
        self.bench, self.out, self.turns, self.quick = bench, out, turns, quick

    def run(self, program, command, folder, keys):
        words = [f"{key}={value}" for key, value in keys.items()]
        done = subprocess.run([*program, command, f"{self.out}/{folder}", *words], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join([*program, command, folder, *words])} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def ours(self, command, folder, keys):
        return self.run([self.bench], command, folder, keys)

    def theirs(self, command, folder, keys):
        return self.run([sys.executable, "-W", "ignore", torch_side], command, folder, keys)

    def best_threads(self, command, folder, keys):
        speed = {}
        for threads in range(1, cores + 1):
            speed[threads] = self.theirs(command, folder, {**keys, "threads": threads})["tokens_per_s"]
        return max(speed, key=speed.get)

    def measure(self, row):
        name, what, must, target, folder, command, our_keys, their_keys = row
        if their_keys["threads"] == "best":
            their_keys = {**their_keys, "threads": self.best_threads(command, folder, their_keys)}
        load = os.getloadavg()[0]
        turn = lambda: (self.ours(command, folder, our_keys), self.theirs(command, folder, their_keys))
        pairs = [turn() for _ in range(self.turns)]
        ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs]
        cpu_ratios = [a["tokens_per_cpu_s"] / b["tokens_per_cpu_s"] for a, b in pairs]
        middle = lambda side: statistics.median(pair[side]["tokens_per_s"] for pair in pairs)
        memory = [max(pair[side]["peak_mb"] for pair in pairs) for side in (0, 1)]
        everywhere = our_keys.get("targets") == "all" or command == "generate"
        theirs_everywhere = everywhere or their_keys.get("logits") != "targets"
        found = dict(
            row=name, what=what, must=must, target=target, turns=self.turns, load=load,
            command=command, ours_keys=our_keys, torch_keys=their_keys,
            logits="" if command == "generate" else f"{'all' if everywhere else 'targets'} / {'all' if theirs_everywhere else 'targets'}",
            ours=middle(0), torch=middle(1), threads=their_keys["threads"],
            ratio=statistics.median(ratios), cpu_ratio=statistics.median(cpu_ratios), ratios=ratios,
            ours_mb=memory[0], torch_mb=memory[1], memory_ratio=memory[0] / memory[1])
        a, b = pairs[0]
        if "losses" in a:
            found["loss_gap"] = max(abs(x - y) for x, y in zip(a["losses"], b["losses"]))
        if "loss" in a:
            found["loss_gap"] = abs(a["loss"] - b["loss"])
        if "first" in a:
            same = sum(1 for x, y in zip(a["first"], b["first"]) if x == y)
            found["same_tokens"] = f"{same}/{len(a['first'])}"
        return found

    def losses(self):
        keys = dict(steps=10 if self.quick else 50, rows="mixed")
        a = self.ours("train", "big", {**keys, "workers": cores})["losses"]
        b = self.theirs("train", "big", {**keys, "threads": cores})["losses"]
        gap = max(abs(x - y) for x, y in zip(a, b))
        return dict(row="loss-50", what=f"largest difference of the loss over {len(a)} steps from the same adapter",
                    gap=gap, must=1e-3, first=a[0], last=a[-1], torch_last=b[-1], load=os.getloadavg()[0])


def measure(bench, out, turns, quick, wanted=""):
    bench = Bench(bench, out, int(turns), quick == "yes")
    wanted = [name for name in wanted.split(",") if name]
    plan = [(row[0], lambda row=row: bench.measure(row)) for row in rows(bench.quick)]
    plan.append(("loss-50", bench.losses))
    unknown = set(wanted) - {name for name, _ in plan}
    if unknown:
        sys.exit(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(name for name, _ in plan)}")
    folder = pathlib.Path(out, "rows")
    folder.mkdir(parents=True, exist_ok=True)
    for name, work in plan:
        if not wanted or name in wanted:
            found = work()
            (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
            print(json.dumps(found), file=sys.stderr, flush=True)
    print(table(out))


def verdict(value, must, least=True):
    if must is None:
        return "", ""
    return f"{'≥' if least else '≤'} {must}", "holds" if (value >= must if least else value <= must) else "**missed**"


def table(out):
    order = [row[0] for row in rows(False)] + ["loss-50"]
    files = [pathlib.Path(out, "rows", f"{name}.json") for name in order]
    found = {name: json.loads(file.read_text()) for name, file in zip(order, files) if file.exists()}
    lines = ["| row | what | logits, ours / PyTorch | ours, tokens/s | PyTorch, tokens/s (threads) | ratio (every turn) "
             "| by processor time | bar | |", "|---|---|---|---|---|---|---|---|---|"]
    timed = [row for row in found.values() if "ratio" in row]
    for row in timed:
        bar, met = verdict(row["ratio"], row["must"])
        each = ", ".join(f"{ratio:.2f}" for ratio in row["ratios"])
        lines.append(f"| {row['row']} | {row['what']} | {row['logits']} | {row['ours']:.1f} | {row['torch']:.1f} ({row['threads']}) "
                     f"| {row['ratio']:.2f}× ({each}) | {row['cpu_ratio']:.2f}× | {bar} | {met} |")
    lines += ["", "Largest resident memory of the process:", "", "| row | ours, MB | PyTorch, MB | ratio | bar | |", "|---|---|---|---|---|---|"]
    for row in timed:
        bar, met = verdict(row["memory_ratio"], 0.7 if row["row"] in ("lora-1", "lora-all") else None, least=False)
        lines.append(f"| {row['row']} | {row['ours_mb']} | {row['torch_mb']} | {row['memory_ratio']:.2f}× | {bar} | {met} |")
    lines += ["", "Agreement of the results (difference of losses in nats):", "", "| row | what | measured | bar | |", "|---|---|---|---|---|"]
    for row in timed:
        if "loss_gap" in row:
            lines.append(f"| {row['row']} | largest difference of the loss | {row['loss_gap']:.1e} | | |")
        if "same_tokens" in row:
            lines.append(f"| {row['row']} | equal tokens of the first sequence | {row['same_tokens']} | | |")
    if curve := found.get("loss-50"):
        bar, met = verdict(curve["gap"], curve["must"], least=False)
        lines.append(f"| loss-50 | {curve['what']} ({curve['first']:.4f} → {curve['last']:.4f}) | {curve['gap']:.1e} | {bar} | {met} |")
    return "\n".join(lines)


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), platform.machine())
    widest = "AVX-512" if " avx512f " in text else "AVX2" if " avx2 " in text else "neither AVX2 nor AVX-512"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    import peft
    import torch
    import transformers
    versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    return f"{model}, {cores} cores ({widest}), {memory:.1f} GB, Linux {platform.release()}; {versions}."


def render(out, file):
    path = pathlib.Path(file)
    text = path.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"{file} has not the lines {BEGIN} and {END}")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(f"{head}{BEGIN}\n\n{machine()}\n\n{table(out)}\n\n{END}{tail}")


if sys.argv[1] == "render":
    render(*sys.argv[2:])
else:
    measure(*sys.argv[1:])
