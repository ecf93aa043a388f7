"""Writes BLAKE3SUMS, the names a network knows the base model's files by.

usage: blake3sums.py FOLDER FILE...
"""

import sys
from pathlib import Path

from blake3 import blake3


def main(folder: Path, names: list[str]) -> None:
    lines = [f"{blake3((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "BLAKE3SUMS").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
