//! `generate`: continues a text.

use crate::inference::{Prompt, TextModel};

use super::args::GenerateArgs;
use super::error::CliError;
use super::reply::Replier;
use super::source::{self, ModelFile};

pub(super) fn run(args: &GenerateArgs) -> Result<(), CliError> {
    let mut replier = Replier::new(&args.reply)?;
    let file = ModelFile::open(&args.model)?;
    let tokenizer = file.tokenizer()?;
    let ids = source::prompt_ids(&args.prompt, || Ok(tokenizer.clone()))?;
    let own = file.config()?.context_length;
    let asked = args.load.context(own);
    let context = source::context(own, asked, ids.len(), args.reply.predict.0)?;
    // Only `-c` reserves more than is needed: a long-rope model chooses its factors by what is reserved.
    replier.options.context = asked;
    let model = file.load(&args.load.options(Some(context)))?;
    replier.note_loading(&model);
    let model = TextModel::new(model, tokenizer)?;
    replier.run(|options, on_text| model.generate(Prompt::Tokens(&ids), options, on_text))
}
