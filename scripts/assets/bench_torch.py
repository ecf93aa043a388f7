"""The PyTorch side of scripts/bench-train.sh: same rows, same batches, same adapter.

usage: bench_torch.py train|eval|generate DIR KEY=VALUE...   (keys as in node/train/examples/bench.rs,
       threads=N instead of workers, logits=all|targets)

`logits=all` is how transformers trains: logits at every position. `logits=targets` gathers the
predicted positions before the output matrix, as our engine does.
"""

import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM

command, folder = sys.argv[1:3]
values = dict(word.split("=", 1) for word in sys.argv[3:])
torch.set_num_threads(int(values.get("threads", "1")))
torch.manual_seed(7)
sets = json.load(open(f"{folder}/rows.json"))
rows = sets["sets"][f"{values.get('rows', 'full')}-{values.get('targets', 'part')}"]


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def padded(rows):
    """Right-padded ids, attention mask and labels; None as mask when nothing is padded."""
    longest = max(len(row["ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100, dtype=torch.long)
    for at, row in enumerate(rows):
        length = len(row["ids"])
        ids[at, :length] = torch.tensor(row["ids"])
        mask[at, :length] = 1
        labels[at, row["prompt"]:length] = ids[at, row["prompt"]:length]
    return ids, None if bool(mask.all()) else mask, labels


def losses(model, ids, mask, labels, reduction):
    shifted = labels[:, 1:].reshape(-1)
    if values.get("logits", "all") == "targets":
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        hidden = inner.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
        keep = shifted != -100
        logits = inner.lm_head(hidden.reshape(-1, hidden.shape[-1])[keep])
        return torch.nn.functional.cross_entropy(logits.float(), shifted[keep], reduction=reduction)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    flat = logits.reshape(-1, logits.shape[-1]).float()
    return torch.nn.functional.cross_entropy(flat, shifted, ignore_index=-100, reduction=reduction)


model = AutoModelForCausalLM.from_pretrained(sets["base"], dtype=torch.float32, attn_implementation="sdpa")
if command == "train":
    if values.get("method", "lora") == "lora":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, f"{folder}/adapter", is_trainable=True)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=sets["rate"], weight_decay=0.0)
    steps, batch = int(values.get("steps", "8")), sets["batch"]
    said, tokens, seconds, cpu = [], 0, 0.0, 0.0
    for step in range(steps):
        first = step * batch % len(rows)
        part = rows[first:first + batch]
        ids, mask, labels = padded(part)
        started, cpu_before = time.perf_counter(), time.process_time()
        loss = losses(model, ids, mask, labels, "mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step > 0 or steps == 1:
            seconds += time.perf_counter() - started
            cpu += time.process_time() - cpu_before
            tokens += sum(len(row["ids"]) for row in part)
        said.append(loss.item())
    result = {"tokens_per_s": tokens / seconds, "tokens_per_cpu_s": tokens / cpu, "losses": said}
elif command == "eval":
    model.eval()
    rows = rows[: int(values.get("count", "32"))]
    batch = 4
    with torch.no_grad():
        losses(model, *padded(rows[:1]), "sum")
        total, count = 0.0, 0
        started, cpu_before = time.perf_counter(), time.process_time()
        for first in range(0, len(rows), batch):
            ids, mask, labels = padded(rows[first:first + batch])
            total += losses(model, ids, mask, labels, "sum").item()
            count += int((labels[:, 1:] != -100).sum())
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    tokens = sum(len(row["ids"]) for row in rows)
    result = {"tokens_per_s": tokens / seconds, "tokens_per_cpu_s": tokens / cpu, "loss": total / count}
else:
    model.eval()
    batch, new = int(values.get("batch", "1")), int(values.get("new", "48"))
    prompts = torch.tensor([rows[at % len(rows)]["ids"][:32] for at in range(batch)])
    how = dict(do_sample=False, use_cache=True, eos_token_id=None, pad_token_id=0)
    with torch.no_grad():
        model.generate(prompts[:1], attention_mask=torch.ones_like(prompts[:1]), max_new_tokens=2, **how)
        started, cpu_before = time.perf_counter(), time.process_time()
        made = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new, **how)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    made = made[:, prompts.shape[1]:]
    result = {"tokens_per_s": made.numel() / seconds, "tokens_per_cpu_s": made.numel() / cpu, "first": made[0].tolist()}
result["peak_mb"] = peak_mb()
print(json.dumps(result))
