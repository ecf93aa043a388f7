"""Compares our scores with those of PyTorch, transformers and peft.

usage: torch_check.py make FIXTURES BASE DATA [NAME...]
       torch_check.py fixtures FIXTURES BASE
       torch_check.py checkpoint BASE CHECKPOINT ROWS SCORES
       torch_check.py base BASE ROWS SCORES
       torch_check.py merged BASE CHECKPOINT FOLDER ROWS

make        writes the golden fixtures: small random models and peft adapters
            on them, with scores and logits, and scores of the shipped base; with
            names, only those
fixtures    computes every score in the fixtures again
checkpoint  scores ROWS (jsonl of prompt and completion) under a checkpoint's
            folder (a peft adapter, or all weights), and compares with SCORES, the
            result.json of our evaluation job
base        the same for the untouched base
merged      compares a merged folder's scores and greedy answer with those of the
            adapter on its base

A row's score is the natural-log negative log-likelihood averaged over the
tokens of its completion and the end of text, in f32 with an f64 log-sum-exp.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

SEED = 7
# What two implementations of one f32 computation may differ by, in nats.
TOLERANCE_SCORE = 1e-3
TOLERANCE_REPEAT = 2e-5
VOCABULARY = 320
ROWS_BASE = 10
END = 0

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# Shapes that differ in everything a loader could wrongly take as given.
SHAPES = {
    "tied": dict(
        config=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5,
                    tie_word_embeddings=True),
        theta=10_000.0, legacy_rope=True, rank=4, alpha=8,
    ),
    "untied": dict(
        config=dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                    num_attention_heads=6, num_key_value_heads=3, rms_norm_eps=1e-6,
                    tie_word_embeddings=False),
        theta=50_000.0, legacy_rope=False, rank=3, alpha=12,
    ),
    "llama3": dict(
        config=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=1, rms_norm_eps=1e-5,
                    tie_word_embeddings=True),
        theta=10_000.0, legacy_rope=True, rank=4, alpha=8, dtype=torch.bfloat16, shard="30KB",
        rope=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=32),
        # Ranks and scales by layer name, and a scale by the root of the rank.
        peft=dict(use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
                  rank_pattern={"down_proj": 6, "layers.0.self_attn.q_proj": 2},
                  alpha_pattern={"layers.1.self_attn.v_proj": 3}),
    ),
    "qwen2": dict(
        family="qwen2",
        config=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
                    tie_word_embeddings=True),
        theta=1_000_000.0, legacy_rope=True, rank=4, alpha=8,
        peft=dict(layers_to_transform=[1]),
    ),
    "qwen3": dict(
        family="qwen3",
        config=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=12,
                    num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
                    tie_word_embeddings=False),
        theta=1_000_000.0, legacy_rope=False, rank=4, alpha=8, dtype=torch.float16,
    ),
}

# Text that is in no shipped set: long, short, one-token, beyond ASCII.
TEXTS = [
    ("Define \"tiltyard\".", " noun: the ground on which jousts are held."),
    ("3 + 4 =", " 7"),
    ("Who goes there?", " A friend, and no friend of the night; let me pass, for the "
     "gates are shut at nine and I have ridden since the morning without water."),
    ("Übersetze: naïve café", " naïf, £5 — déjà vu"),
    ("a", "b"),
]


def load(folder: Path) -> tuple[torch.nn.Module, "Reader"]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    end = model.config.eos_token_id
    return model, Reader(folder, end[0] if isinstance(end, list) else end)


class Reader:
    """A tokenizer with the token that ends a completion."""

    def __init__(self, folder: Path, end: int):
        self.tokenizer, self.end = Tokenizer.from_file(str(folder / "tokenizer.json")), end
        self.encode, self.decode = self.tokenizer.encode, self.tokenizer.decode


def encode(tokenizer: Tokenizer, prompt: str, completion: str) -> tuple[list[int], int]:
    """Tokens of a row, and how many of them are the prompt's."""
    head = tokenizer.encode(prompt, add_special_tokens=False).ids
    tail = tokenizer.encode(completion, add_special_tokens=False).ids
    return head + tail + [tokenizer.end], len(head)


def logits(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].float()


def score(model, tokenizer: Tokenizer, row: tuple[str, str]) -> float:
    ids, prompt = encode(tokenizer, *row)
    log_p = torch.log_softmax(logits(model, ids).double(), dim=-1)
    picked = [log_p[i - 1, ids[i]].item() for i in range(prompt, len(ids))]
    return -sum(picked) / len(picked)


def read_rows(file: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]
    return [(row["prompt"], row["completion"]) for row in rows]


def write_json(file: Path, value) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def small_tokenizer(full: Path, out: Path) -> None:
    """The base's tokenizer cut down to its first VOCABULARY tokens."""
    spec = json.loads(full.read_text("utf-8"))
    model = spec["model"]
    model["vocab"] = {t: i for t, i in model["vocab"].items() if i < VOCABULARY}
    joined = lambda merge: "".join(merge if isinstance(merge, list) else merge.split(" "))
    model["merges"] = [m for m in model["merges"] if joined(m) in model["vocab"]]
    out.write_text(json.dumps(spec, ensure_ascii=False), "utf-8")


def make_model(folder: Path, shape: dict) -> None:
    torch.manual_seed(SEED)
    rope = {"rope_type": "default", **shape.get("rope", {}), "rope_theta": shape["theta"]}
    config = AutoConfig.for_model(
        shape.get("family", "llama"), vocab_size=VOCABULARY, max_position_embeddings=256,
        initializer_range=0.2, rope_parameters=rope, bos_token_id=END, eos_token_id=END,
        pad_token_id=END, **shape["config"],
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    # Norm weights start at one and biases at zero, which would hide a loader that ignores them.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.3 * torch.randn_like(weight))
            if name.endswith(".bias"):
                weight.copy_(0.3 * torch.randn_like(weight))
    model.to(shape.get("dtype", torch.float32))
    model.save_pretrained(folder, max_shard_size=shape.get("shard", "5GB"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if shape["legacy_rope"]:
        spec = json.loads((folder / "config.json").read_text())
        rope = spec.pop("rope_parameters")
        spec["rope_theta"] = rope.pop("rope_theta")
        if rope["rope_type"] != "default":
            spec["rope_scaling"] = rope
        write_json(folder / "config.json", spec)


def make_adapter(folder: Path, shape: dict) -> None:
    torch.manual_seed(SEED + 1)
    base, _ = load(folder)
    config = LoraConfig(
        r=shape["rank"], lora_alpha=shape["alpha"], lora_dropout=0.0, task_type="CAUSAL_LM",
        **{"target_modules": PROJECTIONS} | shape.get("peft", {}),
    )
    model = get_peft_model(base, config)
    # B starts at zero, under which every adapter agrees.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    model.peft_config["default"].base_model_name_or_path = ".."
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    spec = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    spec["target_modules"] = sorted(spec["target_modules"])
    write_json(folder / "adapter" / "adapter_config.json", spec)


def measure(folder: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Scores of TEXTS without and with the adapter, and the first's logits."""
    model, tokenizer = load(folder)
    rows = [{"prompt": p, "completion": c} for p, c in TEXTS]
    ids, _ = encode(tokenizer, *TEXTS[0])
    tensors = {"ids": torch.tensor(ids), "base": logits(model, ids)}
    for row, text in zip(rows, TEXTS):
        row["base_nats"] = score(model, tokenizer, text)
    model = PeftModel.from_pretrained(model, folder / "adapter").eval()
    tensors["adapter"] = logits(model, ids)
    for row, text in zip(rows, TEXTS):
        row["adapter_nats"] = score(model, tokenizer, text)
        row["ids"], row["prompt_tokens"] = encode(tokenizer, *text)
    return rows, tensors


CHATS = [
    [("user", "What is a tiltyard? ")],
    [("system", " Be short.\n"), ("user", "Name a bird."), ("assistant", "A wren."), ("user", "Über <b> & 'q'?")],
    [("user", "2 + 2"), ("assistant", "<think>four</think>\n\n4"), ("user", "# skip"), ("assistant", "ok"),
     ("user", "and 3?"), ("assistant", "<think>x</think>\n7")],
    [("assistant", "I begin"), ("user", "no")],
]


def chats(folder: Path) -> dict:
    """What apply_chat_template makes of CHATS under every template; None where it refuses."""
    from transformers import PreTrainedTokenizerFast
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder.parent / "peft" / "tied" / "tokenizer.json"), bos_token="<s>", eos_token="</s>")
    golden = {}
    for file in sorted(folder.glob("*.jinja")):
        texts = []
        for chat, open_ in [(chat, open_) for chat in CHATS for open_ in (False, True)]:
            messages = [{"role": role, "content": content} for role, content in chat]
            try:
                text = tokenizer.apply_chat_template(
                    messages, chat_template=file.read_text("utf-8"), tokenize=False, add_generation_prompt=open_)
            except Exception as error:
                text = None
            texts.append({"messages": messages, "open": open_, "text": text})
        golden[file.stem] = texts
    return golden


def make(fixtures: Path, base: Path, data: Path, *names: Path) -> None:
    names = list(map(str, names)) or [*SHAPES, "base", "chat"]
    if "chat" in names:
        chat = fixtures.parent / "chat"
        write_json(chat / "golden.json", chats(chat))
    for name in names:
        if name not in SHAPES:
            continue
        shape = SHAPES[name]
        folder = fixtures / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        small_tokenizer(base / "tokenizer.json", folder / "tokenizer.json")
        make_model(folder, shape)
        make_adapter(folder, shape)
        rows, tensors = measure(folder)
        write_json(folder / "scores.json", {"rows": rows})
        save_file(tensors, folder / "logits.safetensors")
    if "base" not in names:
        return
    model, tokenizer = load(base)
    rows = [row for name in ("define", "add")
            for row in read_rows(data / name / "eval.jsonl")[:ROWS_BASE]]
    write_json(fixtures / "base.json", {
        "model_sha256": sha256(base / "model.safetensors"),
        "rows": [{"prompt": p, "completion": c, "nats": score(model, tokenizer, (p, c))}
                 for p, c in rows],
    })
    size = sum(f.stat().st_size for f in fixtures.rglob("*") if f.is_file())
    print(f"fixtures: {size} bytes")


def agree(what: str, ours: list[float], theirs: list[float], tolerance: float) -> None:
    if len(ours) != len(theirs):
        raise SystemExit(f"error: {what}: {len(ours)} scores for {len(theirs)} rows")
    worst = max(abs(a - b) for a, b in zip(ours, theirs))
    mean = abs(sum(ours) - sum(theirs)) / len(ours)
    print(f"{what}: {len(ours)} rows, mean {sum(theirs) / len(theirs):.6f} nats, "
          f"means differ by {mean:.2e}, worst row by {worst:.2e}")
    # "not <=" so that a score that is not a number is refused too.
    if not worst <= tolerance:
        raise SystemExit(f"error: {what}: scores differ by more than {tolerance} nats")


def check_fixtures(fixtures: Path, base: Path) -> None:
    for name in SHAPES:
        folder = fixtures / name
        golden = json.loads((folder / "scores.json").read_text("utf-8"))["rows"]
        rows, tensors = measure(folder)
        for key in ("base_nats", "adapter_nats"):
            agree(f"{name} {key}", [r[key] for r in golden], [r[key] for r in rows],
                  TOLERANCE_REPEAT)
        for key, value in load_file(folder / "logits.safetensors").items():
            if not torch.allclose(value, tensors[key], atol=1e-4):
                raise SystemExit(f"error: {name}: logits {key} differ")
    chat = fixtures.parent / "chat"
    if chats(chat) != json.loads((chat / "golden.json").read_text("utf-8")):
        raise SystemExit("error: chats are written down otherwise; run with --make chat and compare")
    print("chat templates: equal")
    golden = json.loads((fixtures / "base.json").read_text("utf-8"))
    if golden["model_sha256"] != sha256(base / "model.safetensors"):
        raise SystemExit("error: base.json was made with another base; run with --make")
    model, tokenizer = load(base)
    found = [score(model, tokenizer, (r["prompt"], r["completion"])) for r in golden["rows"]]
    agree("base", [r["nats"] for r in golden["rows"]], found, TOLERANCE_REPEAT)


def read_scores(file: Path) -> list[float]:
    """Our scores in nats."""
    result = json.loads(file.read_text("utf-8"))
    try:
        return [micro / 1e6 for micro in result["Evaluated"]["row"]["Scores"]]
    except (KeyError, TypeError):
        raise SystemExit(f"error: {file} is not the result of an evaluation with scores: {result}")


def check_checkpoint(base: Path, checkpoint: Path, rows_file: Path, scores_file: Path) -> None:
    ours = read_scores(scores_file)
    model, tokenizer = load(base)
    rows = read_rows(rows_file)
    untouched = [score(model, tokenizer, row) for row in rows]
    print(f"untouched base: mean {sum(untouched) / len(rows):.6f} nats")
    model = apply(model, checkpoint)
    theirs = [score(model, tokenizer, row) for row in rows]
    agree("checkpoint", ours, theirs, TOLERANCE_SCORE)


def check_base(base: Path, rows_file: Path, scores_file: Path) -> None:
    model, tokenizer = load(base)
    theirs = [score(model, tokenizer, row) for row in read_rows(rows_file)]
    agree("base", read_scores(scores_file), theirs, TOLERANCE_SCORE)


def check_merged(base: Path, checkpoint: Path, folder: Path, rows_file: Path) -> None:
    rows = read_rows(rows_file)[:ROWS_BASE]
    model, tokenizer = load(base)
    model = apply(model, checkpoint)
    apart = [score(model, tokenizer, row) for row in rows]
    merged, tokenizer = load(folder)
    # A bf16 base rounds what is merged into it.
    exact = all(weight.dtype == torch.float32 for weight in
                AutoModelForCausalLM.from_pretrained(folder, dtype="auto").parameters())
    agree("merged", [score(merged, tokenizer, row) for row in rows], apart,
          TOLERANCE_REPEAT * 10 if exact else 5e-2)
    ids, prompt = encode(tokenizer, *rows[0])
    with torch.no_grad():
        said = merged.generate(torch.tensor([ids[:prompt]]), max_new_tokens=16, do_sample=False)
    print(f"merged, greedy: {rows[0][0]!r} -> {tokenizer.decode(said[0][prompt:].tolist())!r}")


def apply(model, checkpoint: Path):
    """Puts a checkpoint on its base: an adapter, or all weights of a full fine-tuning."""
    if not (checkpoint / "adapter_config.json").exists():
        weights = load_file(checkpoint / "model.safetensors")
        missing, unknown = model.load_state_dict(weights, strict=False)
        # A tied output matrix is the embedding, and is not in the file.
        if unknown or set(missing) - {"lm_head.weight"}:
            raise SystemExit(f"error: the checkpoint lacks {missing} and has unknown {unknown}")
        model.tie_weights()
        return model.eval()
    weights = load_file(checkpoint / "adapter_model.safetensors")
    model = PeftModel.from_pretrained(model, checkpoint).eval()
    # A tensor that peft does not know is dropped with a mere warning.
    known = sum("lora_" in name for name, _ in model.named_parameters())
    if len(weights) != known:
        raise SystemExit(f"error: the adapter has {len(weights)} tensors, peft uses {known}")
    return model


def main(command: str, *paths: str) -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    commands = {"make": make, "fixtures": check_fixtures, "checkpoint": check_checkpoint,
                "base": check_base, "merged": check_merged}
    commands[command](*map(Path, paths))


if __name__ == "__main__":
    main(*sys.argv[1:])
