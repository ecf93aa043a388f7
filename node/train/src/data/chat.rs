//! A model's own chat template: Jinja text that turns messages into the text the model was trained on.
//!
//! The template comes with the base model, so every judge writes a chat down alike. It
//! is a program of the requester's: steps, depth and output are bounded, it reads
//! nothing but the messages and the special tokens, and it is given no clock.

use std::io::{self, Write};
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::safe::{LoadError, read_small};

/// The template as a file of its own.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";
/// The file that names special tokens and may hold the template.
pub const CONFIG_FILE: &str = "tokenizer_config.json";
/// Longest template accepted, in bytes.
const TEMPLATE_BYTES_MAX: usize = 256 << 10;
/// Longest text a template may write, in bytes.
const OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Steps a template may take for one chat.
const STEPS_MAX: u64 = 2_000_000;
/// Depth of calls and loops.
const DEPTH_MAX: usize = 64;
/// Name of the template inside its environment; errors name it.
const NAME: &str = "chat_template";

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the scene.
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
}

impl Role {
    /// The role's name in templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Says why a chat cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `tokenizer_config.json` is not readable as such.
    #[error("tokenizer_config.json cannot be read: {0}; use the base model's own file")]
    Config(#[from] serde_json::Error),
    /// No template in the folder.
    #[error(
        "the base model has no chat template: neither {TEMPLATE_FILE} nor chat_template in {CONFIG_FILE}; add the model's own, or post an instruction task"
    )]
    NoTemplate,
    /// A template longer than allowed.
    #[error("the chat template has {bytes} bytes, {TEMPLATE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The template is not Jinja that runs here.
    #[error("the chat template cannot be read: {fact}")]
    Syntax {
        /// The parser's words.
        fact: String,
    },
    /// The template refuses these messages, or fails on them.
    #[error("the chat template refuses the messages: {fact}")]
    Refused {
        /// The template's or the engine's words.
        fact: String,
    },
    /// The template ran beyond its bounds.
    #[error(
        "the chat template takes more than {STEPS_MAX} steps or writes more than {OUTPUT_BYTES_MAX} bytes"
    )]
    OutOfBounds,
}

/// A special token: its text, or an object around it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object { content: String },
}

impl Token {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

/// A template: its text, or several by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    pad_token: Option<Token>,
    chat_template: Option<Templates>,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Beginning, end, unknown and padding token, where the model has them.
    tokens: [Option<String>; 4],
}

impl ChatTemplate {
    /// Loads the template of a base model's folder.
    ///
    /// # Errors
    /// [`ChatError`] when there is none or it is not Jinja that runs here.
    pub fn load(folder: &Path) -> Result<Self, ChatError> {
        let config = folder.join(CONFIG_FILE);
        let config: TokenizerConfig = match config.exists() {
            true => serde_json::from_slice(&read_small(&config)?)?,
            false => TokenizerConfig::default(),
        };
        let file = folder.join(TEMPLATE_FILE);
        let text = if file.exists() {
            String::from_utf8_lossy(&read_small(&file)?).into_owned()
        } else {
            match config.chat_template {
                Some(Templates::One(text)) => text,
                Some(Templates::Named(list)) => {
                    let named = list.into_iter().find(|template| template.name == "default");
                    named.ok_or(ChatError::NoTemplate)?.template
                }
                None => return Err(ChatError::NoTemplate),
            }
        };
        let tokens = [config.bos_token, config.eos_token, config.unk_token, config.pad_token];
        Self::new(&text, tokens.map(|token| token.map(Token::into_text)))
    }

    /// Reads a template's text; `tokens` are the beginning, end, unknown and padding token.
    ///
    /// # Errors
    /// [`ChatError::TooLong`] and [`ChatError::Syntax`].
    pub fn new(text: &str, tokens: [Option<String>; 4]) -> Result<Self, ChatError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(ChatError::TooLong { bytes: text.len() });
        }
        let mut environment = Environment::new();
        // As Hugging Face sets Jinja up.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| ChatError::Syntax { fact: error.to_string() })?);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_recursion_limit(DEPTH_MAX);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        // `strftime_now` is left out on purpose: templates that find none write a fixed date.
        environment.add_function("raise_exception", |words: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, words))
        });
        environment
            .add_template_owned(NAME, without_marks(text))
            .map_err(|error| ChatError::Syntax { fact: error.to_string() })?;
        Ok(Self { environment, tokens })
    }

    /// Writes messages down; `open` adds what comes before the assistant's next answer.
    ///
    /// # Errors
    /// [`ChatError::Refused`] and [`ChatError::OutOfBounds`].
    pub fn render(&self, messages: &[Message], open: bool) -> Result<String, ChatError> {
        let turn =
            |message: &Message| context! { role => message.role.name(), content => message.content.clone() };
        let messages: Vec<Value> = messages.iter().map(turn).collect();
        // A token that the model lacks is no value at all, as there.
        let text = |token: &Option<String>| token.clone().map_or(Value::UNDEFINED, Value::from);
        let [bos_token, eos_token, unk_token, pad_token] = self.tokens.each_ref().map(text);
        let values = context! {
            messages, add_generation_prompt => open, tools => (), documents => (),
            bos_token, eos_token, unk_token, pad_token,
        };
        let refused = |error: &Error| ChatError::Refused {
            fact: error.detail().map_or_else(|| error.to_string(), str::to_owned),
        };
        let template = self.environment.get_template(NAME).map_err(|error| refused(&error))?;
        let mut out = Bounded(Vec::new());
        match template.render_captured_to(values, &mut out) {
            Ok(_) => {}
            Err(error) => {
                return Err(match error.kind() {
                    ErrorKind::OutOfFuel | ErrorKind::WriteFailure => ChatError::OutOfBounds,
                    _ => refused(&error),
                });
            }
        }
        String::from_utf8(out.0).map_err(|error| ChatError::Refused { fact: error.to_string() })
    }
}

/// Bytes up to a limit.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("too much output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes Hugging Face's `generation` marks, which no other Jinja knows, into blocks that change nothing.
fn without_marks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{%") {
        let (before, block) = rest.split_at(at + 2);
        out.push_str(before);
        let Some(end) = block.find("%}") else {
            rest = block;
            break;
        };
        let (inside, after) = block.split_at(end);
        let word = inside.trim_matches(['-', '+', ' ', '\n', '\t']);
        match word {
            "generation" => out.push_str(&inside.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&inside.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(inside),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `tojson` as Hugging Face defines it: nothing escaped for HTML, Python's spaces.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut out = Vec::new();
    match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
        Some(width) => {
            let indent = vec![b' '; width.min(16)];
            let pretty = serde_json::ser::PrettyFormatter::with_indent(&indent);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
    }
    .map_err(failed)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// JSON with a space after each comma and colon, as Python writes it.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
