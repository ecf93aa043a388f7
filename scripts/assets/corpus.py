"""Builds the pre-training text from unpacked public-domain packages.

usage: corpus.py UNPACKED OUT

UNPACKED holds one folder per package (see pretrain.sh). OUT receives one UTF-8
text: blocks of one work each, of about BLOCK characters, cut between
paragraphs or sentences, in an order drawn with a fixed seed and each ended by
the end-of-text token, so that any contiguous part of it is a fair sample.
"""

import gzip
import random
import re
import struct
import sys
import zlib
from pathlib import Path

BLOCK = 4_000
SEED = 20_261_123
END = "<|endoftext|>"
# The oldest state-of-the-union address used; older ones repeat one style and
# the text is bounded by TEXT_MAX.
SOTU_FROM = 1934
TEXT_MAX = 10_000_000
# Typographic marks to plain ones: with 1,024 tokens there are none to waste.
PLAIN = str.maketrans({
    "“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-",
    "…": "...", "\u00a0": " ", "æ": "ae", "é": "e", "è": "e", "ê": "e",
    "à": "a", "ç": "c", "ï": "i", "ô": "o", "ö": "o", "ü": "u", "Æ": "AE",
})


def austen(package: Path) -> list[str]:
    """Reads the novels from R's lazy-load data file.

    The file is a row of (4-byte big-endian length, zlib stream); each stream is
    one R serialization (XDR, version 2 or 3) of a character vector whose
    elements are the lines of a novel.
    """
    data = (package / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    novels = []
    while data:
        stream = zlib.decompressobj()
        raw = stream.decompress(data[4:])
        data = stream.unused_data
        novels.append("\n".join(r_strings(raw)))
    return novels


def r_strings(raw: bytes) -> list[str]:
    """Decodes one serialized R character vector."""
    if raw[:2] != b"X\n":
        raise SystemExit("error: not an R serialization in XDR form")
    version, = struct.unpack_from(">i", raw, 2)
    at = 14
    if version == 3:
        length, = struct.unpack_from(">i", raw, at)
        at += 4 + length
    flags, count = struct.unpack_from(">ii", raw, at)
    if flags & 0xFF != 16:
        raise SystemExit("error: the R object is not a character vector")
    at += 8
    lines = []
    for _ in range(count):
        _, length = struct.unpack_from(">ii", raw, at)
        at += 8
        lines.append(raw[at:at + max(length, 0)].decode("utf-8"))
        at += max(length, 0)
    return lines


def moby_dick(package: Path) -> list[str]:
    """Reads Melville's chapters in their order."""
    number = lambda p: int(p.stem.split("_")[1])
    chapters = sorted((package / "data").glob("chapter_*.txt"), key=number)
    return [p.read_text("utf-8") for p in chapters]


def sotu(package: Path) -> list[str]:
    """Reads the addresses of presidents since SOTU_FROM."""
    files = sorted((package / "data").glob("*.txt"))
    return [p.read_text("utf-8") for p in files if int(p.name[:4]) >= SOTU_FROM]


def devil(package: Path) -> list[str]:
    """Reads Bierce's dictionary, without the distributor's header."""
    with gzip.open(package / "usr/share/dictd/devil.dict.dz", "rt", encoding="latin-1") as f:
        text = f.read()
    return [text[text.index("ABASEMENT, n."):]]


def paragraphs(text: str) -> list[str]:
    """Splits on blank lines, unwraps lines and folds typography."""
    text = text.translate(PLAIN).replace("\r", "")
    found = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text))
    return [p for p in found if p]


def blocks(work: str) -> list[str]:
    """Cuts one work into blocks of about BLOCK characters."""
    out, block = [], ""
    for paragraph in paragraphs(work):
        pieces = [paragraph]
        if len(paragraph) > BLOCK:
            pieces = re.split(r"(?<=[.!?])\s+(?=[A-Z\"])", paragraph)
        for piece in pieces:
            joint = "" if not block else ("\n" if piece is paragraph else " ")
            block += joint + piece
            if len(block) >= BLOCK:
                out.append(block)
                block = ""
    if block:
        out.append(block)
    return out


def main(unpacked: Path, out: Path) -> None:
    works = {
        "austen": austen(unpacked / "r-cran-janeaustenr"),
        "moby-dick": moby_dick(unpacked / "datasets-moby-dick"),
        "sotu": sotu(unpacked / "datasets-sotu"),
        "devil": devil(unpacked / "dict-devil"),
    }
    every = []
    for name, texts in works.items():
        if not texts:
            raise SystemExit(f"error: the package of {name} holds no text")
        cut = [block for text in texts for block in blocks(text)]
        print(f"{name}: {len(texts)} texts, {len(cut)} blocks, "
              f"{sum(map(len, cut))} characters")
        every += cut
    random.Random(SEED).shuffle(every)
    text = "".join(block + END for block in every)
    if len(text) > TEXT_MAX:
        raise SystemExit(f"error: {len(text)} characters exceed {TEXT_MAX}")
    out.write_text(text, "utf-8")
    print(f"{out.name}: {len(text)} characters, {len(text.encode())} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
