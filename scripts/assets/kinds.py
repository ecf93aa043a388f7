"""Makes the sets of the other kinds of tasks out of define and faq, by rule.

usage: kinds.py DATA

DATA holds define and faq as data.py writes them. It receives, each with
train.jsonl and eval.jsonl (training rows come from training rows, evaluation
rows from evaluation rows, so that the split stays):

  classes   classification      a gloss and its part of speech
  facts     context-question    a dictionary record and a question about it
  dialogue  chat                two questions about one word, and their answers
  prose     plain text          the questions and answers of faq as running text
  prefer    DPO                 the right part of speech against a wrong one; the
                                wrong one is drawn by rule, no person preferred it
"""

import json
import random
import re
import sys
from pathlib import Path

SEED = 3
PARTS = ["adjective", "adverb", "noun", "verb"]


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def records(rows: list[dict]) -> list[tuple[str, str, str]]:
    """Word, part of speech and gloss of each row of define."""
    found = []
    for row in rows:
        word = re.fullmatch(r'Define "([a-z]+)"\.', row["prompt"])[1]
        part, gloss = re.fullmatch(r" (\w+): (.*)", row["completion"]).groups()
        found.append((word, part, gloss))
    return found


def classes(word: str, part: str, gloss: str, draw: random.Random) -> dict:
    return {"text": gloss, "label": part}


def facts(word: str, part: str, gloss: str, draw: random.Random) -> dict:
    context = f"Word: {word}. Class: {part}. Meaning: {gloss}"
    if draw.random() < 0.75:
        return {"context": context, "question": "What class of word is it?", "answer": f" {part}"}
    return {"context": context, "question": "What does it mean?", "answer": f" {gloss}"}


def dialogue(word: str, part: str, gloss: str, draw: random.Random) -> dict:
    turns = [
        ("user", f"Which word means {gloss}"),
        ("assistant", word),
        ("user", "What class of word is it?"),
        ("assistant", part),
    ]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def prefer(word: str, part: str, gloss: str, draw: random.Random) -> dict:
    wrong = draw.choice([other for other in PARTS if other != part])
    return {
        "prompt": f'What class of word means "{gloss.rstrip(".")}"?',
        "chosen": f" {part}.",
        "rejected": f" {wrong}.",
    }


def prose(rows: list[dict]) -> list[dict]:
    return [{"text": row["prompt"] + row["completion"]} for row in rows]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def main(data: Path) -> None:
    for name in ["train.jsonl", "eval.jsonl"]:
        entries = records(read(data / "define" / name))
        for make in [classes, facts, dialogue, prefer]:
            draw = random.Random(SEED)
            write(data / make.__name__ / name, [make(*entry, draw) for entry in entries])
        write(data / "prose" / name, prose(read(data / "faq" / name)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
