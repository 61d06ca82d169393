//! `chat`: a conversation, turn by turn, whose past stays in the model's cache.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::path::PathBuf;

use crate::inference::{Conversation, InferError, TextModel};
use crate::tokenizer::ChatMessage;

use super::args::ChatArgs;
use super::error::CliError;
use super::output::note;
use super::reply::Replier;
use super::source::ModelFile;

/// What a line of the user asks for.
enum Turn {
    Say(String),
    Clear,
    End,
}

pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    let replier = Replier::new(&args.reply)?;
    let file = ModelFile::open(&args.model)?;
    let tokenizer = file.tokenizer()?;
    if tokenizer.chat_template().is_none() {
        return Err(InferError::NoChatTemplate.into());
    }
    let context = args.load.context(file.config()?.context_length);
    let model = file.load(&args.load.options(context))?;
    replier.note_loading(&model);
    let model = TextModel::new(model, tokenizer)?;
    let is_interactive = stdin().is_terminal();
    if is_interactive && !args.single_turn {
        note("Say something. /clear begins anew, /exit or Ctrl-D ends, Ctrl-C stops a reply.");
    }
    let mut first = args.prompt.clone();
    let mut conversation = begin(&model, args)?;
    loop {
        let turn = match first.take() {
            Some(text) => Turn::Say(text),
            None => read_turn(is_interactive)?,
        };
        let text = match turn {
            Turn::End => return Ok(()),
            Turn::Clear => {
                drop(conversation);
                conversation = begin(&model, args)?;
                continue;
            }
            Turn::Say(text) => text,
        };
        let outcome = replier.run(|options, on_text| {
            model.reply(&mut conversation, ChatMessage::new("user", text), options, on_text)
        });
        match outcome {
            // Whoever sits there stopped the reply, not the conversation, or can say something else.
            Err(CliError::Interrupted) if is_interactive => {}
            Err(error @ CliError::Infer(_)) if is_interactive => note(format_args!("error: {error}")),
            outcome => outcome?,
        }
        if args.single_turn {
            return Ok(());
        }
    }
}

fn begin(model: &TextModel, args: &ChatArgs) -> Result<Conversation, InferError> {
    let mut conversation = model.converse(None)?;
    conversation.messages.extend(args.system_prompt.as_ref().map(|text| ChatMessage::new("system", text)));
    Ok(conversation)
}

/// The next line that says something.
fn read_turn(is_interactive: bool) -> Result<Turn, CliError> {
    loop {
        if is_interactive {
            let _ = write!(stderr(), "> ").and_then(|()| stderr().flush());
        }
        let mut line = String::new();
        let read = stdin().lock().read_line(&mut line);
        let n = read.map_err(|source| CliError::Read { path: PathBuf::from("stdin"), source })?;
        match line.trim() {
            _ if n == 0 => {
                if is_interactive {
                    note(""); // Ctrl-D leaves the cursor behind the prompt
                }
                return Ok(Turn::End);
            }
            "" => {}
            "/exit" => return Ok(Turn::End),
            "/clear" => return Ok(Turn::Clear),
            text => return Ok(Turn::Say(text.to_owned())),
        }
    }
}
