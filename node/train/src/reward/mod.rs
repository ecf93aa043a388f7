//! Declarative rewards: what an answer is worth, written in its row as data.
//!
//! A reward lies between 0 and 1 and is a function of the answer's text alone: no code of
//! a stranger runs, nothing is fetched, and the work is bounded by the answer's length.
//!
//! | form | worth 1 when |
//! |---|---|
//! | `{"exact": TEXT}` | the answer is TEXT, white space around both aside |
//! | `{"numeric": {"value": X, "tolerance": D}}` | its last number is within D of X (D is 0 when absent) |
//! | `{"regex": PATTERN}` | the pattern matches somewhere in it |
//! | `{"schema": SCHEMA}` | it is JSON that fits; see [`schema`] |
//! | `{"length": {"min": A, "max": B}}` | it has A to B characters, white space around it aside |
//! | `{"sum": [{"weight": W, "reward": R}, …]}` | every part is; else the weighted mean of the parts |
//!
//! Everything else is worth 0. Unknown forms and keys are refused.

mod number;
pub mod schema;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer};

use schema::{Schema, SchemaError};

/// Most parts of a sum.
pub const PARTS_MAX: usize = 16;
/// Largest weight of a part.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 4_096;
/// Largest compiled pattern, in bytes; a pattern that needs more is refused.
const PATTERN_COMPILED_MAX: usize = 1 << 20;
/// Deepest nesting of groups in a pattern.
const PATTERN_NEST_MAX: u32 = 64;
/// Longest text or answer that is looked at, in bytes; a longer answer is worth nothing.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Says why a reward is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewardError {
    /// Not one of the forms.
    #[error("is none of exact, numeric, regex, schema, length, sum: {fact}")]
    Form {
        /// The parser's words.
        fact: String,
    },
    /// A pattern that does not compile within its limits.
    #[error("has a pattern that cannot be used: {fact}")]
    Pattern {
        /// The compiler's words, cut.
        fact: String,
    },
    /// A number out of range.
    #[error("sets {key} = {value}; {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        wanted: &'static str,
    },
    /// A schema that cannot be used.
    #[error("has a schema that cannot be used: {0}")]
    Schema(#[from] SchemaError),
    /// A sum inside a sum.
    #[error("has a sum inside a sum; write its parts into one")]
    Nested,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NumericForm {
    value: f64,
    #[serde(default)]
    tolerance: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LengthForm {
    #[serde(default)]
    min: usize,
    max: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartForm {
    weight: u32,
    reward: Form,
}

/// A reward as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    Exact(String),
    Numeric(NumericForm),
    Regex(String),
    Schema(serde_json::Value),
    Length(LengthForm),
    Sum(Vec<PartForm>),
}

/// A reward that can be given.
#[derive(Debug, Clone)]
pub struct Reward(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Exact(String),
    Numeric { value: f64, tolerance: f64 },
    Regex(Box<Regex>),
    Schema(Box<Schema>),
    Length { min: usize, max: usize },
    Sum(Vec<(u32, Reward)>),
}

impl Reward {
    /// Reads a reward from its JSON value.
    ///
    /// # Errors
    /// [`RewardError`] naming what is not accepted.
    pub fn parse(value: &serde_json::Value) -> Result<Self, RewardError> {
        let form = Form::deserialize(value).map_err(|error| RewardError::Form { fact: cut(&error) })?;
        Self::of(form, false)
    }

    fn of(form: Form, inside: bool) -> Result<Self, RewardError> {
        let kind = match form {
            Form::Exact(text) => {
                let text = text.trim().to_owned();
                within("exact", text.len(), 1..=ANSWER_BYTES_MAX, "a text that is not empty is accepted")?;
                Kind::Exact(text)
            }
            Form::Numeric(NumericForm { value, tolerance }) => {
                if tolerance < 0.0 {
                    let (key, value) = ("tolerance", tolerance.to_string());
                    return Err(RewardError::Value { key, value, wanted: "0 or more is accepted" });
                }
                Kind::Numeric { value, tolerance }
            }
            Form::Regex(pattern) => Kind::Regex(Box::new(compile(&pattern)?)),
            Form::Schema(value) => Kind::Schema(Box::new(Schema::parse(&value)?)),
            Form::Length(LengthForm { min, max }) => {
                within("length.max", max, 1..=ANSWER_BYTES_MAX, "1 to 1,048,576 characters are accepted")?;
                within("length.min", min, 0..=max, "0 to length.max is accepted")?;
                Kind::Length { min, max }
            }
            Form::Sum(_) if inside => return Err(RewardError::Nested),
            Form::Sum(parts) => {
                within("sum", parts.len(), 1..=PARTS_MAX, "1 to 16 parts are accepted")?;
                let part = |part: PartForm| {
                    let weights = 1..=WEIGHT_MAX as usize;
                    within("weight", part.weight as usize, weights, "1 to 1,000,000 is accepted")?;
                    Ok((part.weight, Self::of(part.reward, true)?))
                };
                Kind::Sum(parts.into_iter().map(part).collect::<Result<_, RewardError>>()?)
            }
        };
        Ok(Self(kind))
    }

    /// What an answer is worth, from 0 to 1.
    pub fn of_answer(&self, answer: &str) -> f64 {
        if answer.len() > ANSWER_BYTES_MAX {
            return 0.0;
        }
        let answer = answer.trim();
        let holds = match &self.0 {
            Kind::Exact(text) => answer == text,
            Kind::Numeric { value, tolerance } => {
                number::last(answer).is_some_and(|found| (found - value).abs() <= *tolerance)
            }
            Kind::Regex(regex) => regex.is_match(answer),
            Kind::Schema(schema) => {
                serde_json::from_str(answer).is_ok_and(|value: serde_json::Value| schema.fits(&value))
            }
            Kind::Length { min, max } => (*min..=*max).contains(&answer.chars().count()),
            Kind::Sum(parts) => {
                let whole: f64 = parts.iter().map(|(weight, _)| f64::from(*weight)).sum();
                let worth = |(weight, part): &(u32, Self)| f64::from(*weight) * part.of_answer(answer);
                return (parts.iter().map(worth).sum::<f64>() / whole).clamp(0.0, 1.0);
            }
        };
        f64::from(u8::from(holds))
    }
}

impl<'de> Deserialize<'de> for Reward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::parse(&value).map_err(serde::de::Error::custom)
    }
}

fn within(
    key: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
    wanted: &'static str,
) -> Result<(), RewardError> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(RewardError::Value { key, value: value.to_string(), wanted }),
    }
}

fn cut(words: &impl ToString) -> String {
    words.to_string().chars().take(200).collect()
}

fn compile(pattern: &str) -> Result<Regex, RewardError> {
    within("regex", pattern.len(), 1..=PATTERN_BYTES_MAX, "a pattern of 1 to 4,096 bytes is accepted")?;
    let built = RegexBuilder::new(pattern)
        .size_limit(PATTERN_COMPILED_MAX)
        .dfa_size_limit(PATTERN_COMPILED_MAX)
        .nest_limit(PATTERN_NEST_MAX)
        .build();
    built.map_err(|error| RewardError::Pattern { fact: cut(&error) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn worth(reward: serde_json::Value, answer: &str) -> f64 {
        Reward::parse(&reward).expect("a reward").of_answer(answer)
    }

    #[test]
    fn each_form_is_worth_one_or_nothing() {
        for (reward, good, bad) in [
            (json!({"exact": "Paris"}), " Paris\n", "paris"),
            (json!({"numeric": {"value": 69}}), "21 + 48 = 69", "69 or 70"),
            (json!({"numeric": {"value": -1.5, "tolerance": 0.25}}), "it is -1.7.", "-1.8"),
            (json!({"regex": "^[0-9]+$"}), " 12 ", "12 apples"),
            (json!({"schema": {"type": "object", "required": ["a"]}}), "{\"a\": 1}", "{\"b\": 1}"),
            (json!({"length": {"min": 2, "max": 3}}), " äöü ", "four"),
        ] {
            assert_eq!(worth(reward.clone(), good), 1.0, "{reward} of {good:?}");
            assert_eq!(worth(reward.clone(), bad), 0.0, "{reward} of {bad:?}");
            assert_eq!(worth(reward, ""), 0.0);
        }
    }

    #[test]
    fn a_sum_is_the_weighted_mean_of_its_parts() {
        let reward = json!({"sum": [
            {"weight": 1, "reward": {"regex": "^[0-9]+$"}},
            {"weight": 3, "reward": {"numeric": {"value": 7}}},
        ]});
        assert_eq!(worth(reward.clone(), "7"), 1.0);
        assert_eq!(worth(reward.clone(), "8"), 0.25);
        assert_eq!(worth(reward, "it is 7"), 0.75);
    }

    #[test]
    fn what_is_not_a_bounded_reward_is_refused_with_the_reason() {
        for (reward, words) in [
            (json!("exact"), "none of exact"),
            (json!({"python": "len(answer)"}), "none of exact"),
            (json!({"numeric": {"value": 1, "slack": 2}}), "slack"),
            (json!({"numeric": {"value": 1, "tolerance": -1.0}}), "tolerance = -1"),
            (json!({"exact": "  "}), "exact = 0"),
            (json!({"regex": "(unclosed"}), "cannot be used"),
            (json!({"regex": "((a{100}){100}){100}"}), "cannot be used"),
            (json!({"length": {"min": 5, "max": 4}}), "length.min = 5"),
            (json!({"sum": []}), "sum = 0"),
            (json!({"sum": [{"weight": 0, "reward": {"exact": "a"}}]}), "weight = 0"),
            (json!({"sum": [{"weight": 1, "reward": {"sum": []}}]}), "sum inside a sum"),
            (json!({"schema": {"type": "object", "$ref": "#"}}), "schema that cannot be used"),
        ] {
            let error = Reward::parse(&reward).expect_err("refused").to_string();
            assert!(error.contains(words), "{reward}: {error}");
        }
    }

    #[test]
    fn a_pattern_that_backtracking_engines_choke_on_takes_linear_time() {
        let reward = json!({"regex": "^(a+)+$"});
        assert_eq!(worth(reward, &format!("{}b", "a".repeat(100_000))), 0.0);
    }
}
