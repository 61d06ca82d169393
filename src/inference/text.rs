//! A model with its tokenizer: text in, text out, shared between threads.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::tokenizer::{ChatMessage, ChatTemplate, EncodeOptions, Tokenizer};

use super::generate::Session;
use super::stop::StopWatch;
use super::{GenerateOptions, InferError, Model, StopReason, Timings, Tokens};

/// What is to be continued.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// Text, encoded as the tokenizer says: special tokens are parsed, a BOS is added where the model wants one.
    Text(&'a str),
    /// Token ids as they are.
    Tokens(&'a [u32]),
}

/// A generation, in tokens and text.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The prompt's tokens.
    pub prompt_ids: Vec<u32>,
    /// The new tokens, without the one that ended the text.
    pub ids: Vec<u32>,
    /// Their text, up to a stop text; special tokens as they are spelled, bytes that are not UTF-8 as U+FFFD.
    pub text: String,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// How long it took.
    pub timings: Timings,
}

/// A model with its tokenizer. Clones share the model; one generates at a time.
#[derive(Clone)]
pub struct TextModel {
    model: Arc<Mutex<Model>>,
    tokenizer: Tokenizer,
}

/// A conversation whose past stays in its model's cache until it is dropped.
pub struct Conversation {
    model: Arc<Mutex<Model>>,
    /// Taken when the conversation is dropped.
    session: Option<Session>,
    template: ChatTemplate,
    /// What was said so far.
    pub messages: Vec<ChatMessage>,
}

impl TextModel {
    /// A model and the tokenizer that belongs to it.
    ///
    /// # Errors
    /// The tokenizer has more tokens than the model.
    pub fn new(model: Model, tokenizer: Tokenizer) -> Result<Self, InferError> {
        let (tokens, rows) = (tokenizer.vocabulary_size(), model.config.vocab_size);
        if tokens > rows {
            return Err(InferError::TokenizerMismatch { tokenizer: tokens, model: rows });
        }
        let mut model = model;
        model.add_ends(tokenizer.end_of_generation());
        Ok(Self { model: Arc::new(Mutex::new(model)), tokenizer })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model, for as long as the guard lives.
    ///
    /// # Errors
    /// A thread panicked while it used the model.
    pub fn model(&self) -> Result<MutexGuard<'_, Model>, InferError> {
        self.model.lock().map_err(|_| InferError::Poisoned)
    }

    /// Bytes that the model takes on its device.
    ///
    /// # Errors
    /// As for [`TextModel::model`].
    pub fn get_vram_usage(&self) -> Result<u64, InferError> {
        Ok(self.model()?.total_vram_bytes)
    }

    /// Continues a prompt; `on_text` sees the text as it becomes complete. The model is in use meanwhile: `on_text` must not
    /// call it.
    ///
    /// # Errors
    /// The prompt is empty, cannot be encoded or does not fit the context; or sampling or the device failed.
    pub fn generate(
        &self,
        prompt: Prompt<'_>,
        options: &GenerateOptions,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Generation, InferError> {
        let prompt_ids = match prompt {
            Prompt::Text("") => return Err(InferError::EmptyPrompt),
            Prompt::Text(text) => self.tokenizer.encode(text, EncodeOptions::default())?,
            Prompt::Tokens(ids) => ids.to_vec(),
        };
        let mut model = self.model()?;
        self.stream(prompt_ids, &options.stop, on_text, &mut |ids, on_token| {
            model.generate(ids, options, on_token)
        })
    }

    /// Begins a conversation with room for `context` tokens, or for all that the model has.
    ///
    /// # Errors
    /// The file has no chat template, or the template does not parse.
    pub fn converse(&self, context: Option<usize>) -> Result<Conversation, InferError> {
        let template = ChatTemplate::of(&self.tokenizer)?.ok_or(InferError::NoChatTemplate)?;
        let mut model = self.model()?;
        let context = context.unwrap_or(model.context());
        let session = Some(Session::begin(&mut *model.runner, context)?);
        Ok(Conversation { model: Arc::clone(&self.model), session, template, messages: Vec::new() })
    }

    /// Adds a message to a conversation and the model's reply to it.
    ///
    /// # Errors
    /// As for [`TextModel::generate`], where the template refuses the messages, and where the conversation was begun
    /// with another model. The conversation then stays as it was.
    pub fn reply(
        &self,
        conversation: &mut Conversation,
        message: ChatMessage,
        options: &GenerateOptions,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Generation, InferError> {
        let (true, Some(session)) =
            (Arc::ptr_eq(&self.model, &conversation.model), &mut conversation.session)
        else {
            let (given, actual) = ("another model's".to_owned(), "it must be this model's".to_owned());
            return Err(InferError::StateMismatch { field: "conversation", given, actual });
        };
        let mut messages = conversation.messages.clone();
        messages.push(message);
        let text = conversation.template.render(&messages, true)?;
        let encode = EncodeOptions { add_special: false, parse_special: true };
        let prompt_ids = self.tokenizer.encode(&text, encode)?;
        let mut model = self.model()?;
        let generation = self.stream(prompt_ids, &options.stop, on_text, &mut |ids, on_token| {
            model.generate_in(session, ids, options, on_token)
        })?;
        messages.push(ChatMessage::new("assistant", generation.text.clone()));
        conversation.messages = messages;
        Ok(generation)
    }

    /// Runs `generate`, which yields tokens, and turns them into text, held back where it could become a stop text.
    fn stream(
        &self,
        prompt_ids: Vec<u32>,
        stops: &[String],
        on_text: &mut dyn FnMut(&str),
        generate: &mut GenerateTokens<'_>,
    ) -> Result<Generation, InferError> {
        let mut decoder = self.tokenizer.stream().keep_special(true);
        let mut watch = StopWatch::new(stops);
        let (mut text, mut stopped, mut failed) = (String::new(), None, None);
        let mut emit = |piece: &str| {
            if !piece.is_empty() {
                text.push_str(piece);
                on_text(piece);
            }
        };
        let tokens = generate(&prompt_ids, &mut |token| match decoder.push(token) {
            Ok(piece) => {
                let (piece, stop) = watch.push(&piece);
                emit(&piece);
                stopped = stop;
                if stop.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let stop_reason = match stopped {
            Some(stop) => StopReason::StopText(stop.to_owned()),
            None => {
                let (last, stop) = watch.push(&decoder.finish());
                emit(&last);
                emit(&watch.finish());
                stop.map_or(tokens.stop_reason, |stop| StopReason::StopText(stop.to_owned()))
            }
        };
        Ok(Generation { prompt_ids, ids: tokens.ids, text, stop_reason, timings: tokens.timings })
    }

    /// Continues a prompt greedily by up to `sample_len` tokens and answers the new text. It runs on a thread where
    /// blocking is allowed.
    ///
    /// # Errors
    /// As for [`TextModel::generate`].
    pub async fn forward(&self, prompt: &str, sample_len: usize) -> Result<String, InferError> {
        let (this, prompt) = (self.clone(), prompt.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            let options = GenerateOptions { max_tokens: Some(sample_len), ..GenerateOptions::default() };
            this.generate(Prompt::Text(&prompt), &options, &mut |_| {})
        });
        Ok(task.await.map_err(|_| InferError::TaskStopped)??.text)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if let (Some(session), Ok(mut model)) = (self.session.take(), self.model.lock()) {
            model.runner.end(session.sequence);
        }
    }
}

/// Generates tokens from a prompt, telling of each.
type GenerateTokens<'a> =
    dyn FnMut(&[u32], &mut dyn FnMut(u32) -> ControlFlow<()>) -> Result<Tokens, InferError> + 'a;

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.model.try_lock() {
            Ok(model) => write!(f, "TextModel({model:?})"),
            Err(_) => f.write_str("TextModel(in use)"),
        }
    }
}

impl TextModel {
    /// Loads a model, and the tokenizer that its file holds.
    ///
    /// # Errors
    /// As for [`Model::load`]; and the file's tokenizer cannot be used.
    pub fn load(
        path: impl AsRef<Path>,
        options: &super::LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, InferError> {
        let path = path.as_ref();
        let gguf = crate::gguf::Gguf::open(path).map_err(|error| InferError::of_model(path, error))?;
        let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
        Self::new(Model::load_from(&gguf, path, options, progress)?, tokenizer)
    }
}
