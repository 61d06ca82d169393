//! `logits`: writes the logits of every token of a prompt.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};

use crate::inference::LoadOptions;

use super::args::LogitsArgs;
use super::error::CliError;
use super::output::note;
use super::source::{self, ModelFile};

pub(super) fn run(args: &LogitsArgs) -> Result<(), CliError> {
    let file = ModelFile::open(&args.model)?;
    let ids = source::prompt_ids(&args.prompt, || file.tokenizer())?;
    let own = file.config()?.context_length;
    let asked = args.load.context(own);
    let context = source::context(own, asked, ids.len(), Some(0))?;
    let options = args.load.options(Some(context));
    let mut model = file.load(&LoadOptions { logits_rows: options.chunk.min(ids.len()), ..options })?;
    let logits = model.logits(&ids, asked)?;
    let shape = vec![ids.len(), model.config.vocab_size];
    let path = &args.output;
    let failed = |source| CliError::Write { path: path.clone(), source };
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    let tensor = TensorView::new(Dtype::F32, shape.clone(), &bytes).map_err(failed)?;
    serialize_to_file([("logits", tensor)], None, path).map_err(failed)?;
    note(format_args!("wrote logits {shape:?} to {}", path.display()));
    Ok(())
}
