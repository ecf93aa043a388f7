"""Makes the sets of the kinds grpo and diffusion, and the rows of the image base.

usage: graded.py UNPACKED OUT [REST]

UNPACKED holds the package scikit-learn (see make-assets.sh). OUT receives
  sums    made by rule: sums of two numbers of two digits, each unordered pair once;
          {"prompt", "reward", "completion"}: the reward looks at the last number of an
          answer, the completion is a reference answer for a supervised warm-up
  digits  the nines of scikit-learn's digits, {"image"}: 8 x 8 grey pixels as bytes in
          hexadecimal; levels 0 to 16 of the source become 0 to 255
Splits are drawn with fixed seeds. REST, when given, receives the digits 0 to 8 as
train.jsonl and eval.jsonl, which scripts/pretrain-images.sh trains the image base on.
"""

import csv
import gzip
import json
import random
import sys
from pathlib import Path

SUMS_SEED = 3
SUMS_EVAL_ROWS = 300
SUMS_TRAIN_ROWS = 2000
DIGITS_SEED = 2
DIGITS_EVAL_ROWS = 60
REST_EVAL_ROWS = 160


def sums() -> tuple[list[dict], list[dict]]:
    draw = random.Random(SUMS_SEED)
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100)]
    pairs = [draw.sample(pair, 2) for pair in pairs]
    draw.shuffle(pairs)
    rows = [
        {"prompt": f"{a} + {b} =", "reward": {"numeric": {"value": a + b}}, "completion": f" {a + b}"}
        for a, b in pairs
    ]
    return rows[SUMS_EVAL_ROWS:SUMS_EVAL_ROWS + SUMS_TRAIN_ROWS], rows[:SUMS_EVAL_ROWS]


def digits(package: Path) -> list[list[dict]]:
    """The rows of each digit, in the order of the source."""
    every: list[list[dict]] = [[] for _ in range(10)]
    with gzip.open(package / "sklearn/datasets/data/digits.csv.gz", "rt") as f:
        for *pixels, digit in csv.reader(f):
            # Level 8 meets a half, which goes to the even 128.
            text = "".join(f"{round(float(v) * 255 / 16):02x}" for v in pixels)
            every[int(float(digit))].append({"image": text})
    return every


def write(folder: Path, training: list[dict], evaluation: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", training), ("eval", evaluation)):
        lines = [json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def main(unpacked: Path, out: Path, rest: Path | None) -> None:
    write(out / "sums", *sums())
    every = digits(unpacked / "scikit-learn")
    nines = every[9]
    random.Random(DIGITS_SEED).shuffle(nines)
    write(out / "digits", nines[DIGITS_EVAL_ROWS:], nines[:DIGITS_EVAL_ROWS])
    if rest:
        others = [row for rows in every[:9] for row in rows]
        random.Random(DIGITS_SEED).shuffle(others)
        write(rest, others[REST_EVAL_ROWS:], others[:REST_EVAL_ROWS])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
