"""An external trainer for Tiltyard miners: LoRA with TRL and PEFT.

    strategy = "external:python3 /path/to/scripts/external/trl_lora.py"
    strategy = "external:torchrun --nproc-per-node 4 /path/to/scripts/external/trl_lora.py"

Works in the job's folder, its last argument, by the contract of
node/docs/job-folder.md: reads job.json, trains within the budget of tokens,
writes progress.jsonl, external/checkpoint and external/recipe.json, and ends
when the file `finish` appears. Needs torch, transformers, trl, peft, datasets.
Further arguments before the folder: --lr, --rank, --batch-rows, --epochs.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Contract(TrainerCallback):
    """Writes progress, and stops at the budget of tokens or when asked to finish."""

    def __init__(self, job: Path, budget: int, tokens_a_step: float):
        self.job, self.budget, self.tokens_a_step = job, budget, tokens_a_step
        self.started = time.monotonic()

    def on_log(self, args, state, control, logs=None, **_):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        tokens = int(state.global_step * self.tokens_a_step)
        speed = tokens / max(time.monotonic() - self.started, 1e-3)
        line = {
            "phase": "train", "step": state.global_step, "steps": state.max_steps, "tokens": tokens,
            "budget_tokens": self.budget, "loss_micro": round(logs["loss"] * 1e6),
            "lr_nano": round(logs.get("learning_rate", 0) * 1e9), "tokens_per_s": int(speed),
            "eta_s": int((state.max_steps - state.global_step) * self.tokens_a_step / max(speed, 1)),
        }
        with open(self.job / "progress.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def on_step_end(self, args, state, control, **_):
        used = (state.global_step + 1) * self.tokens_a_step
        if used > self.budget or (self.job / "finish").exists():
            control.should_training_stop = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch-rows", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("job", type=Path)
    options = parser.parse_args()
    spec = json.loads((options.job / "job.json").read_text())["train"]
    if spec["kind"] != "Instruction":
        raise SystemExit(f"this trainer learns instruction tasks, not {spec['kind']}")
    seed = int(os.environ["TILTYARD_SEED"]) % 2**32

    tokenizer = AutoTokenizer.from_pretrained(spec["base"])
    model = AutoModelForCausalLM.from_pretrained(spec["base"], dtype=torch.float32)
    end = model.config.eos_token_id
    end = end[0] if isinstance(end, list) else end

    # The written template of SPEC.md, "Scoring v1": each part tokenized on its own, then the end token.
    def encode(row):
        prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [end]
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}

    rows = load_dataset("json", data_files=f"{spec['training']}/train.jsonl", split="train")
    rows = rows.map(encode, remove_columns=rows.column_names)
    tokens = sum(map(len, rows["input_ids"]))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    tokens_a_step = tokens / len(rows) * options.batch_rows * world
    steps = int(min(options.epochs * tokens, spec["budget_tokens"]) // tokens_a_step)
    if steps < 1:
        raise SystemExit(f"a budget of {spec['budget_tokens']} tokens does not pay for a step of {tokens_a_step:.0f}")

    out = options.job / "external"
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out / "trl"), max_steps=steps, per_device_train_batch_size=options.batch_rows,
            learning_rate=options.lr, lr_scheduler_type="cosine", warmup_steps=max(1, steps // 20),
            max_length=None, packing=False, gradient_checkpointing=False,
            logging_steps=1, save_strategy="no", report_to=[], seed=seed, data_seed=seed,
            use_cpu=not torch.cuda.is_available(), bf16=torch.cuda.is_available(), disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False,
            eos_token=tokenizer.convert_ids_to_tokens(end),
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=options.rank, lora_alpha=2 * options.rank, lora_dropout=0.0, target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[Contract(options.job, spec["budget_tokens"], tokens_a_step)],
    )
    trainer.train()
    if not trainer.is_world_process_zero():
        return
    trainer.model.save_pretrained(out / "checkpoint")
    taken = trainer.state.global_step
    (out / "recipe.json").write_text(json.dumps({
        "trainer": "trl", "learning_rate": options.lr, "batch_rows": options.batch_rows * world,
        "accumulation": 1, "steps": taken, "sequence_tokens": max(map(len, rows["input_ids"])),
        "tokens_trained": int(taken * tokens_a_step), "extra": {"schedule": "cosine"},
    }))


if __name__ == "__main__":
    main()
