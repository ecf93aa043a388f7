//! Pre-trains the small base model that ships with the project.
//!
//! ```text
//! pretrain --tokenizer DIR/tokenizer.json --text FILE --out DIR --steps N
//!          [--batch 16] [--seq 128] [--seed 1] [--lr 0.003] [--workers 2] [--shard 4]
//!          [--eos "<|endoftext|>"]
//! ```
//!
//! Writes `config.json`, `model.safetensors` (bf16) and a copy of `tokenizer.json`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tiltyard_train::fit::pretrain::{Settings, run, tiny, tokenize};
use tiltyard_train::model::FileType;
use tokenizers::Tokenizer;

struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut found = BTreeMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                return Err(format!("unexpected argument {word:?}; see the file's first lines").into());
            };
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            found.insert(name.to_owned(), value);
        }
        Ok(Self(found))
    }

    fn take(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        self.0.remove(name).ok_or_else(|| format!("--{name} is required").into())
    }

    fn take_or<T: std::str::FromStr>(&mut self, name: &str, default: T) -> Result<T, Box<dyn Error>>
    where
        T::Err: Error + 'static,
    {
        match self.0.remove(name) {
            None => Ok(default),
            Some(text) => Ok(text.parse().map_err(|error| format!("--{name} {text}: {error}"))?),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::parse()?;
    let tokenizer_path = PathBuf::from(arguments.take("tokenizer")?);
    let text_path = PathBuf::from(arguments.take("text")?);
    let out = PathBuf::from(arguments.take("out")?);
    let settings = Settings {
        steps: arguments.take("steps")?.parse()?,
        batch: arguments.take_or("batch", 16)?,
        sequence: arguments.take_or("seq", 128)?,
        seed: arguments.take_or("seed", 1)?,
        learning_rate: arguments.take_or("lr", 3e-3)?,
        workers: arguments.take_or("workers", 2)?,
        shard: arguments.take_or("shard", 4)?,
    };
    let eos_text: String = arguments.take_or("eos", "<|endoftext|>".to_owned())?;
    if let Some(name) = arguments.0.keys().next() {
        return Err(format!("unknown argument --{name}; see the file's first lines").into());
    }
    pretrain(&tokenizer_path, &text_path, &out, &settings, &eos_text)
}

fn pretrain(
    tokenizer_path: &Path,
    text_path: &Path,
    out: &Path,
    settings: &Settings,
    eos_text: &str,
) -> Result<(), Box<dyn Error>> {
    let tokenizer = Tokenizer::from_file(tokenizer_path).map_err(|e| format!("tokenizer.json: {e}"))?;
    let eos = tokenizer
        .token_to_id(eos_text)
        .ok_or_else(|| format!("the tokenizer has no token {eos_text:?}; name one with --eos"))?;
    let ids = tokenize(&tokenizer, &std::fs::read_to_string(text_path)?)?;
    let config = tiny(tokenizer.get_vocab_size(true), eos);
    let started = Instant::now();
    println!("{} tokens of text, vocabulary {}", ids.len(), config.vocab);
    let per_step = (settings.batch * settings.sequence) as f64;
    let model = run(config, &ids, settings, 40, |progress| {
        let seconds = started.elapsed().as_secs_f64();
        let speed = progress.step as f64 * per_step / seconds;
        let held_out = progress.held_out.unwrap_or(f64::NAN);
        println!(
            "step {:>6}/{}  loss {:.4}  held-out {held_out:.4}  {speed:.0} tok/s  {seconds:.0} s",
            progress.step, settings.steps, progress.loss
        );
    })?;
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("model.safetensors"), model.to_safetensors(FileType::Bf16)?)?;
    std::fs::write(out.join("config.json"), model.config().to_json("bfloat16")?)?;
    let copy = out.join("tokenizer.json");
    if copy != tokenizer_path {
        std::fs::copy(tokenizer_path, copy)?;
    }
    println!("{} parameters written", model.parameters());
    Ok(())
}
