"""Makes the instruction sets that ship with the project.

usage: data.py UNPACKED TOKENIZER OUT

UNPACKED holds the packages dict-wn and zaragoza-construction-faq (see
make-assets.sh). OUT receives define, add and faq, each with train.jsonl and
eval.jsonl of {"prompt", "completion"} rows. Rows of one set are distinct in
prompt and in completion (sums: in the unordered pair), the split is drawn with
a fixed seed, and no row exceeds its set's bound on the tokens of prompt,
completion and end of text together.
"""

import gzip
import json
import random
import re
import sys
from pathlib import Path

from tokenizers import Tokenizer

SEED = 2
# Sentences of the faq are long: under 48 tokens only 140 of its rows are left.
TOKENS_MAX = {"define": 48, "add": 48, "faq": 96}
TRAIN_ROWS = 600
EVAL_ROWS = 200
# A set too small for both sizes keeps a whole evaluation set.
TRAIN_ROWS_MIN = 100

Row = tuple[str, str]

# "    n 1: gloss", up to the next sense or the end of the entry.
FIRST_SENSE = re.compile(
    r"\s+(n|v|adj|adv)(?: 1)?: (.*?)"
    r"(?=\n\s+(?:(?:n|v|adj|adv) )?\d+: |\n\s+(?:n|v|adj|adv): |\Z)",
    re.S,
)
# Words whose entry says one of these are left out: a shipped set should not
# hold slurs or obscenities.
UNFIT = re.compile(r"slur|offensive|disparag|obscen|vulgar|derogat|sex|prostitut|genital|excre", re.I)
PARTS = {"n": "noun", "v": "verb", "adj": "adjective", "adv": "adverb"}


def define(package: Path) -> list[Row]:
    """The first sense of single words: part of speech and gloss.

    Entries start in column 0; the first sense is "    n 1: gloss; "example"
    [syn: ...]", wrapped over indented lines until the next sense.
    """
    with gzip.open(package / "usr/share/dictd/wn.dict.dz", "rt", encoding="utf-8") as f:
        text = f.read()
    rows, seen = [], set()
    for entry in re.split(r"\n(?=\S)", text):
        word, _, body = entry.partition("\n")
        sense = FIRST_SENSE.match(body)
        if not sense or not re.fullmatch(r"[a-z]{3,}", word):
            continue
        if UNFIT.search(sense[2]):
            continue
        gloss = re.sub(r"\s+", " ", sense[2])
        gloss = re.split(r";| \[| -- ", gloss)[0].strip()
        if not re.fullmatch(r"[A-Za-z][A-Za-z ,'()-]+[a-z)]", gloss) or gloss in seen:
            continue
        seen.add(gloss)
        rows.append((f'Define "{word}".', f" {PARTS[sense[1]]}: {gloss}."))
    return rows


def add() -> list[Row]:
    """Sums of two numbers below 100, one per unordered pair."""
    draw = random.Random(SEED)
    pairs = [(a, b) for a in range(100) for b in range(a, 100)]
    return [
        (f"{x} + {y} =", f" {x + y}")
        for x, y in (draw.sample(pair, 2) if pair[0] != pair[1] else pair for pair in pairs)
    ]


def faq(package: Path, fits) -> list[Row]:
    """Questions and as many whole leading sentences of the answer as fit."""
    data = package / "zaragoza_construction_faq/data/faq-en-alpaca.jsonl"
    rows, seen = [], set()
    for line in data.read_text("utf-8").splitlines():
        entry = json.loads(line)
        prompt = entry["instruction"].strip()
        sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", entry["output"].strip())
        answer = ""
        for n in range(len(sentences), 0, -1):
            answer = " " + " ".join(sentences[:n])
            if fits((prompt, answer)):
                break
        if prompt not in seen and answer not in seen:
            seen |= {prompt, answer}
            rows.append((prompt, answer))
    return rows


def write(path: Path, rows: list[Row]) -> None:
    lines = [json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) for p, c in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def main(unpacked: Path, tokenizer_file: Path, out: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def tokens(row: Row) -> int:
        return sum(len(tokenizer.encode(part).ids) for part in row) + 1

    def fits(name: str, row: Row) -> bool:
        return tokens(row) <= TOKENS_MAX[name]

    sets = {
        "define": define(unpacked / "dict-wn"),
        "add": add(),
        "faq": faq(unpacked / "zaragoza-construction-faq", lambda row: fits("faq", row)),
    }
    for name, every in sets.items():
        rows = [row for row in every if fits(name, row)]
        random.Random(SEED).shuffle(rows)
        evaluation, training = rows[:EVAL_ROWS], rows[EVAL_ROWS:EVAL_ROWS + TRAIN_ROWS]
        if len(training) < TRAIN_ROWS_MIN:
            raise SystemExit(f"error: {name} has only {len(rows)} rows that fit")
        (out / name).mkdir(parents=True, exist_ok=True)
        write(out / name / "train.jsonl", training)
        write(out / name / "eval.jsonl", evaluation)
        lengths = [tokens(row) for row in training + evaluation]
        print(f"{name}: {len(every)} rows, {len(rows)} fit, {len(training)} training, "
              f"{len(evaluation)} evaluation, {sum(lengths) / len(lengths):.1f} tokens a row, "
              f"at most {max(lengths)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
