//! Tests of recipe forms.

use super::*;
use crate::fit::group::GroupSettings;
use crate::fit::settings::Settings;

#[test]
fn autotrain_is_its_published_form() {
    let rows = [20; 600];
    let form = Form::preset("autotrain").unwrap();
    let recipe = form.recipe(Strategy::Fixed("autotrain".into()), 1, &rows, u64::MAX).unwrap();
    assert_eq!((recipe.learning_rate_nano, recipe.warmup_ppm), (30_000, 100_000));
    assert_eq!((recipe.batch_rows, recipe.accumulation, recipe.steps), (2, 4, 225));
    let targets = Method::ALL_LINEAR;
    let lora = Method::Lora { rank: 16, alpha_milli: 32_000, dropout_ppm: 50_000, targets };
    assert_eq!((recipe.method, recipe.clip_milli, recipe.weight_decay_ppm), (lora, 1_000, 0));
    let cut = form.recipe(Strategy::Fixed("autotrain".into()), 1, &rows, 1_000).unwrap();
    assert_eq!(cut.steps, 6, "160 tokens a step");
}

#[test]
fn errors_name_the_key() {
    let wrong = |text: &str| Form::parse(text.as_bytes()).unwrap_err().to_string();
    let rest = "schedule = \"linear\"\nbatch_rows = 4\nepochs = 1\n";
    assert!(wrong(&format!("learning_rat = 1e-3\n{rest}")).contains("learning_rat"));
    assert!(wrong(&format!("learning_rate = -1.0\n{rest}")).contains("learning_rate = -1"));
    assert!(wrong(&format!("learning_rate = 1e-3\nsteps = 3\n{rest}")).contains("exactly one"));
    let targets = "[lora]\nrank = 4\nalpha = 8\ntargets = [\"lm_head\"]\n";
    assert!(wrong(&format!("learning_rate = 1e-3\n{rest}{targets}")).contains("lm_head"));
    let json = r#"{"learning_rate":1e-3,"schedule":"sine","batch_rows":4,"epochs":1}"#;
    assert!(wrong(json).contains("sine"));
    assert!(Form::preset("nobody").unwrap_err().to_string().contains("llama-factory"));
}

#[test]
fn settings_travel_under_free_keys_and_come_back_typed() {
    let rows = [20; 60];
    let text = "learning_rate = 1e-3\nschedule = \"constant\"\nbatch_rows = 4\nsteps = 9\nema = 0.9\n\
                shard_tokens = 64\nbucket_steps = 3\nevaluate_every = 2\npatience = 1\ngroup_size = 4\nwarm_steps = 6\ntemperature = 0.5\ngroup_rate = 0.1\nloss_average = \"example\"\n";
    let recipe = Form::parse(text.as_bytes())
        .unwrap()
        .recipe(Strategy::Fixed("x".into()), 1, &rows, u64::MAX)
        .unwrap();
    recipe.check().unwrap();
    let settings = Settings::read(&recipe).unwrap();
    let wanted = Settings {
        average: crate::data::Average::Example,
        shard_tokens: 64,
        ema_decay_ppm: Some(900_000),
        bucket_steps: 3,
        evaluate_every_steps: Some(2),
        patience: Some(1),
        group: GroupSettings { size: 4, warm_steps: 6, temperature_milli: 500, rate_ppm: 100_000 },
    };
    assert_eq!(settings, wanted);
    let mut wrong = recipe;
    for (key, value) in &mut wrong.extra {
        if key == EMA_KEY {
            *value = "much".to_owned();
        }
    }
    assert!(Settings::read(&wrong).unwrap_err().to_string().contains("ema-decay-ppm"));
    let alone = "learning_rate = 1e-3\nschedule = \"linear\"\nbatch_rows = 4\nsteps = 9\npatience = 2\n";
    assert!(Form::parse(alone.as_bytes()).unwrap_err().to_string().contains("evaluate_every"));
}
