//! Chat templates: Jinja, as model files carry it, rendered as the `transformers` library renders it.
//!
//! A template comes with a model file and is not trusted. It has no access to anything but the messages; its steps, its
//! depth and its output are limited, so it cannot hang. It can still make one very long string in few steps:
//! a service that loads files of unknown origin should bound its own memory.

use std::io;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, context};
use regex::Regex;

use super::{ChatTemplateError, Tokenizer};

/// Steps a template may take. The longest of the known ones takes some hundreds for each message.
const MAX_STEPS: u64 = 10_000_000;

/// Bytes a template may print.
const MAX_OUTPUT: usize = 256 << 20;

const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl ChatMessage {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A chat template, ready to render.
///
/// The text it renders holds its own special tokens, the begin-of-sequence token among them where the template prints
/// `bos_token`: encode it with special tokens parsed, and without adding another.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// A template, and the texts it may print as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`ChatTemplateError::Syntax`] where the template does not parse.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self, ChatTemplateError> {
        let syntax = |source| ChatTemplateError::Syntax { source };
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(syntax)?,
        );
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_recursion_limit(100);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_test("iterable", is_iterable);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_global("bos_token", bos_token);
        environment.add_global("eos_token", eos_token);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(syntax)?;
        Ok(Self { environment })
    }

    /// The template that came with a tokenizer, `None` where none did.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn of(tokenizer: &Tokenizer) -> Result<Option<Self>, ChatTemplateError> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        let template = tokenizer.chat_template();
        template.map(|source| Self::new(source, text(tokenizer.bos()), text(tokenizer.eos()))).transpose()
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the assistant's reply begins.
    ///
    /// # Errors
    /// The template refuses the messages, fails, does not end, or prints too much.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ChatTemplateError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        // `tools` and `documents` are there and empty, as `transformers` has them.
        let context = context! {
            messages => messages, add_generation_prompt => add_generation_prompt, tools => (), documents => (),
        };
        let mut output = Bounded { bytes: Vec::new(), is_full: false };
        let template =
            self.environment.get_template(NAME).map_err(|source| ChatTemplateError::Render { source })?;
        let outcome = template.render_captured_to(context, &mut output).map(|_| ());
        match outcome {
            Ok(()) => Ok(String::from_utf8_lossy(&output.bytes).into_owned()),
            Err(_) if output.is_full => Err(ChatTemplateError::TooLong { limit: MAX_OUTPUT }),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => {
                Err(ChatTemplateError::Endless { limit: MAX_STEPS })
            }
            Err(source) => Err(match refusal(&source) {
                Some(Refusal(message)) => ChatTemplateError::Refused { message: message.clone() },
                None => ChatTemplateError::Render { source },
            }),
        }
    }
}

/// Output that refuses to grow past [`MAX_OUTPUT`].
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.is_full = true;
            return Err(io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `{% generation %}` marks what a model said, for training. It prints nothing, but it may eat white space, so a
/// block that does nothing takes its place.
fn without_generation_tags(source: &str) -> String {
    static TAGS: LazyLock<[Option<Regex>; 2]> = LazyLock::new(|| {
        [r"\{%([-+]?)\s*generation\s*([-+]?)%\}", r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}"]
            .map(|pattern| Regex::new(pattern).ok())
    });
    let mut source = source.to_owned();
    for (tag, replacement) in TAGS.iter().zip(["{%$1 if true $2%}", "{%$1 endif $2%}"]) {
        if let Some(tag) = tag {
            source = tag.replace_all(&source, replacement).into_owned();
        }
    }
    source
}

/// Python's idea of what can be iterated: not `None`, which templates test their `tools` for.
fn is_iterable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

/// What a template says when it refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// The refusal among an error's causes.
fn refusal(error: &Error) -> Option<&Refusal> {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .find_map(|error| error.downcast_ref())
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
}

/// Today's date in UTC, in the fields of C's `strftime` that templates use.
fn strftime_now(format: &str) -> Result<String, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(format, seconds)
}

/// A time in seconds since 1970, in UTC, in those fields.
pub(crate) fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let days = seconds / 86_400;
    // Days to a date, in years that begin in March so that a leap day ends one ("days from civil", H. Hinnant).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let (month_name, day_name) = (MONTHS[month as usize], DAYS[(days % 7) as usize]);
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        text.push_str(&match characters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{:02}", month + 1),
            Some('d') => format!("{day:02}"),
            Some('H') => format!("{:02}", seconds / 3_600 % 24),
            Some('M') => format!("{:02}", seconds / 60 % 60),
            Some('S') => format!("{:02}", seconds % 60),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let field = other.map_or_else(|| "%".to_owned(), |other| format!("%{other}"));
                let message = format!("strftime_now does not know `{field}`");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        });
    }
    Ok(text)
}

/// How JSON is laid out: Python's `json.dumps`.
struct JsonLayout {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<usize>,
    item_separator: String,
    key_separator: String,
}

/// The filter `tojson`, as `transformers` has it: no characters escaped for HTML, `", "` and `": "` between items.
fn to_json(value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    let separators: Option<Vec<String>> = arguments.get("separators")?;
    let (item_separator, key_separator) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let layout = JsonLayout {
        ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item_separator,
        key_separator,
    };
    arguments.assert_all_used()?;
    let mut json = String::new();
    layout.write(value, 0, &mut json)?;
    Ok(Value::from_safe_string(json))
}

impl JsonLayout {
    fn write(&self, value: &Value, depth: usize, json: &mut String) -> Result<(), Error> {
        if depth > 100 {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: values are nested too deep"));
        }
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => json.push_str("null"),
            ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => json.push_str(&value.to_string()),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default(), json),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.write_items(('{', '}'), keys, depth, json, |key, json| {
                    self.write_string(&key.to_string(), json);
                    json.push_str(&self.key_separator);
                    self.write(&value.get_item(key)?, depth + 1, json)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect();
                self.write_items(('[', ']'), items, depth, json, |item, json| {
                    self.write(item, depth + 1, json)
                })?;
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("tojson: {kind} has no JSON form"),
                ));
            }
        }
        Ok(())
    }

    fn write_items(
        &self,
        (open, close): (char, char),
        items: Vec<Value>,
        depth: usize,
        json: &mut String,
        write: impl Fn(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let new_line = |depth: usize, json: &mut String| {
            if let Some(indent) = self.indent.filter(|_| !items.is_empty()) {
                json.push('\n');
                json.extend(std::iter::repeat_n(' ', indent.min(64) * depth));
            }
        };
        json.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                json.push_str(&self.item_separator);
            }
            new_line(depth + 1, json);
            write(item, json)?;
        }
        new_line(depth, json);
        json.push(close);
        Ok(())
    }

    fn write_string(&self, text: &str, json: &mut String) {
        json.push('"');
        for character in text.chars() {
            match character {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\u{8}' => json.push_str("\\b"),
                '\u{c}' => json.push_str("\\f"),
                _ if character < ' ' || (self.ensure_ascii && character > '~') => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        json.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => json.push(character),
            }
        }
        json.push('"');
    }
}
