//! Pre-trains the small image model that ships with the project.
//!
//! ```text
//! pretrain_images --rows FILE --held-out FILE --out DIR --steps N [--rows-a-step 64]
//!                 [--lr 0.002] [--seed 1] [--workers 2]
//! ```
//! Rows are `{"image": HEX}`. Writes `config.json` and `model.safetensors` (bf16).

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};
use tiltyard_train::eval::pictures::errors;
use tiltyard_train::fit::denoise::Denoise;
use tiltyard_train::fit::run::Run;
use tiltyard_train::model::image::{ImageShape, tiny};
use tiltyard_train::model::{FileType, Model};
use tiltyard_train::picture::Picture;

fn read(path: &str, shape: ImageShape) -> Result<Vec<Picture>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let picture = |line: &str| {
        Picture::parse(line.as_bytes(), shape).map_err(|fault| format!("{path}: a row {fault}").into())
    };
    text.lines().map(picture).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut given: BTreeMap<&str, &str> =
        words.as_chunks::<2>().0.iter().map(|[name, value]| (name.as_str(), value.as_str())).collect();
    let mut take = |name: &str, default: Option<&'static str>| {
        let found = given.remove(name).map(str::to_owned).or(default.map(str::to_owned));
        found.ok_or_else(|| format!("{name} is required; see the file's first lines"))
    };
    let config = tiny();
    let shape = config.image().ok_or("the shape shipped is an image model's")?;
    let rows = read(&take("--rows", None)?, shape)?;
    let held_out = read(&take("--held-out", None)?, shape)?;
    let out = take("--out", None)?;
    let steps: u32 = take("--steps", None)?.parse()?;
    let batch_rows: u32 = take("--rows-a-step", Some("64"))?.parse()?;
    let rate: f64 = take("--lr", Some("0.002"))?.parse()?;
    let seed: u64 = take("--seed", Some("1"))?.parse()?;
    let workers: usize = take("--workers", Some("2"))?.parse()?;
    let base = Model::random(config, seed)?;
    let recipe = Recipe {
        version: Recipe::VERSION,
        trainer: "pretrain_images".into(),
        strategy: Strategy::Fixed("pretrain".into()),
        method: Method::Full,
        learning_rate_nano: (rate * 1e9).round() as u64,
        schedule: Schedule::Cosine,
        warmup_ppm: 20_000,
        batch_rows,
        accumulation: 1,
        steps,
        sequence_tokens: shape.patches() as u32,
        packing: false,
        weight_decay_ppm: 10_000,
        clip_milli: 1_000,
        seed,
        tokens_trained: 0,
        extra: vec![("ema-decay-ppm".into(), "999000".into()), ("shard-tokens".into(), "512".into())],
    };
    let mut run = Run::with_objective(&base, recipe, Box::new(Denoise { pictures: &rows, shape }), workers)?;
    let mut sum = 0.0;
    for step in 1..=steps {
        sum += run.advance()?.loss;
        if step % (steps / 20).max(1) == 0 || step == steps {
            let errors = errors(&run.result()?, &held_out, shape, 8, workers)?;
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            println!(
                "step {step} training error {:.4} held out {mean:.4}",
                sum / f64::from((steps / 20).max(1))
            );
            sum = 0.0;
        }
    }
    let (model, out) = (run.result()?, Path::new(&out));
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("model.safetensors"), model.to_safetensors(FileType::Bf16)?)?;
    std::fs::write(out.join("config.json"), model.config().to_json("bfloat16")?)?;
    Ok(())
}
