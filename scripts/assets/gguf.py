"""Makes a Hugging Face folder of a llama.cpp model file.

usage: gguf.py FILE.gguf FOLDER

Reads what the one model of scripts/fetch-models.sh is made of: a Llama without
biases, tensors of types F32, F16, Q4_0, Q4_1 and Q8_0, a byte-level BPE
tokenizer that splits digits. Anything else is refused, never guessed.

Weights are written as f32: a Q4_1 value is scale * level + offset with two f16
numbers, which neither f16 nor bf16 holds exactly. llama.cpp turns neighbouring
elements of a head where Hugging Face turns its two halves, so the rows of the
query and key projections are put back in their first order.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

ALIGNMENT = 32
BLOCK = 32
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
SPECIAL = 3

NAMES = [
    ("token_embd.", "model.embed_tokens."), ("output_norm.", "model.norm."), ("blk.", "model.layers."),
    ("attn_q.", "self_attn.q_proj."), ("attn_k.", "self_attn.k_proj."), ("attn_v.", "self_attn.v_proj."),
    ("attn_output.", "self_attn.o_proj."), ("output.", "lm_head."), ("attn_norm.", "input_layernorm."), ("ffn_norm.", "post_attention_layernorm."),
    ("ffn_gate.", "mlp.gate_proj."), ("ffn_up.", "mlp.up_proj."), ("ffn_down.", "mlp.down_proj."),
]


def refuse(fact: str):
    raise SystemExit(f"error: {fact}; this script converts the one file that scripts/fetch-models.sh names")


class Reader:
    """Reads GGUF's header: keys, then the tensors' names, shapes, types and places."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0
        if data[:4] != b"GGUF" or struct.unpack_from("<I", data, 4)[0] != 3:
            refuse("not a GGUF file of version 3")
        self.at = 8
        tensors, keys = self.scalar("Q"), self.scalar("Q")
        self.keys = {self.text(): self.value(self.scalar("I")) for _ in range(keys)}
        self.tensors = {}
        for _ in range(tensors):
            name = self.text()
            shape = [self.scalar("Q") for _ in range(self.scalar("I"))]
            self.tensors[name] = (shape[::-1], self.scalar("I"), self.scalar("Q"))
        self.start = -(-self.at // ALIGNMENT) * ALIGNMENT

    def scalar(self, form: str):
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        self.at += length
        return self.data[self.at - length:self.at].decode("utf-8")

    def value(self, kind: int):
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            kind, length = self.scalar("I"), self.scalar("Q")
            return [self.value(kind) for _ in range(length)]
        if kind not in SCALARS:
            refuse(f"a key of type {kind}")
        return self.scalar(SCALARS[kind])

    def weights(self, name: str) -> np.ndarray:
        """One tensor, row major, as f32."""
        shape, kind, offset = self.tensors[name]
        count, at = int(np.prod(shape)), self.start + offset
        raw = lambda dtype, items: np.frombuffer(self.data, dtype, items, at)
        if kind == 0:
            values = raw("<f4", count)
        elif kind == 1:
            values = raw("<f2", count).astype(np.float32)
        elif kind == 2:
            block = raw([("d", "<f2"), ("q", "u1", 16)], count // BLOCK)
            values = scale(block) * (levels(block) - 8)
        elif kind == 3:
            block = raw([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)], count // BLOCK)
            values = scale(block) * levels(block) + block["m"].astype(np.float32)[:, None]
        elif kind == 8:
            block = raw([("d", "<f2"), ("q", "i1", 32)], count // BLOCK)
            values = scale(block) * block["q"].astype(np.float32)
        else:
            refuse(f"tensor {name} of type {kind}")
        return values.reshape(shape)


def scale(block) -> np.ndarray:
    return block["d"].astype(np.float32)[:, None]


def levels(block) -> np.ndarray:
    """The 32 levels of a block: low halves of its bytes, then high halves."""
    return np.concatenate([block["q"] & 15, block["q"] >> 4], axis=1).astype(np.float32)


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of rows inside each head."""
    outputs, inputs = rows.shape
    return rows.reshape(heads, outputs // heads // 2, 2, inputs).swapaxes(1, 2).reshape(outputs, inputs)


def model(file: Reader) -> dict[str, np.ndarray]:
    heads = {"attn_q": file.keys["llama.attention.head_count"],
             "attn_k": file.keys["llama.attention.head_count_kv"]}
    tensors = {}
    for name in file.tensors:
        values = file.weights(name)
        for part, count in heads.items():
            if f".{part}.weight" in name:
                values = halves(values, count)
        for theirs, ours in NAMES:
            name = name.replace(theirs, ours)
        tensors[name] = values
    return tensors


def config(file: Reader) -> dict:
    key = lambda name: file.keys[f"llama.{name}"]
    hidden, heads = key("embedding_length"), key("attention.head_count")
    if file.keys["general.architecture"] != "llama" or key("rope.dimension_count") * heads != hidden:
        refuse("another architecture than a plain Llama")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": key("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": key("feed_forward_length"),
        "num_hidden_layers": key("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": key("attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "rope_theta": key("rope.freq_base"),
        # The file holds an f32; the shortest text of it is what was meant.
        "rms_norm_eps": float(str(np.float32(key("attention.layer_norm_rms_epsilon")))),
        "max_position_embeddings": key("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": file.keys["tokenizer.ggml.bos_token_id"],
        "eos_token_id": file.keys["tokenizer.ggml.eos_token_id"],
        "pad_token_id": file.keys["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float32",
    }


def tokenizer(file: Reader) -> dict:
    key = lambda name: file.keys[f"tokenizer.ggml.{name}"]
    if (key("model"), key("pre")) != ("gpt2", "smollm"):
        refuse("another tokenizer than byte-level BPE with single digits")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = [token for token, kind in enumerate(key("token_type")) if kind == SPECIAL]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": key("tokens")[token], "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True} for token in special
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: at for at, token in enumerate(key("tokens"))},
            "merges": [merge.split(" ") for merge in key("merges")],
        },
    }


def tokenizer_config(file: Reader) -> dict:
    token = lambda name: file.keys["tokenizer.ggml.tokens"][file.keys[f"tokenizer.ggml.{name}_token_id"]]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "unk_token": token("unknown"),
        "add_bos_token": False,
        "add_eos_token": False,
        "model_max_length": file.keys["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": file.keys["tokenizer.chat_template"],
    }


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        end = at + tensors[name].size * 4
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            out.write(np.ascontiguousarray(tensors[name], "<f4").tobytes())


def write_json(path: Path, value: dict, indent=2) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", "utf-8")


def main(source: Path, folder: Path) -> None:
    file = Reader(source.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config(file))
    write_json(folder / "tokenizer.json", tokenizer(file), None)
    write_json(folder / "tokenizer_config.json", tokenizer_config(file))
    write_safetensors(folder / "model.safetensors", model(file))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
