"""Trains the byte-level BPE tokenizer of the base model.

usage: tokenizer.py TEXT OUT

Token 0 ends a text. Digits stand alone, so that a small model can learn sums;
every byte has a token, so that no input is unknown.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 1024
END = "<|endoftext|>"


def main(text: Path, out: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    blocks = text.read_text("utf-8").split(END)
    tokenizer.train_from_iterator(blocks, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY or tokenizer.token_to_id(END) != 0:
        raise SystemExit("error: the vocabulary is not the expected one")
    tokenizer.save(str(out))
    sample = blocks[0][:100_000]
    ids = tokenizer.encode(sample).ids
    if tokenizer.decode(ids) != sample:
        raise SystemExit("error: decoding does not give back the text")
    print(f"{out.name}: {VOCABULARY} tokens, {len(sample) / len(ids):.2f} characters a token; "
          f"{json.dumps(tokenizer.encode('12 + 7 = 19' + END).tokens)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
