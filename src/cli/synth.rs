//! `synth`: writes a synthetic model.

use crate::model::{CATALOG, ModelConfig};
use crate::synth::{MIXES, Mix, SynthError, SynthOptions, write};

use super::args::SynthArgs;
use super::error::CliError;
use super::output::{note, print, size};
use super::progress;

pub(super) fn run(args: &SynthArgs) -> Result<(), CliError> {
    let (false, Some(model), Some(path)) = (args.list, &args.model, &args.output) else { return list() };
    let config = ModelConfig::named(model).map_err(SynthError::from)?;
    let options = SynthOptions { seed: args.seed, mix: Mix::from_name(&args.format)? };
    let report = write(&config, &options, path, &mut progress::bar("writing"))?;
    note(format_args!("wrote {} tensors, {}, to {}", report.tensors, size(report.bytes), path.display()));
    Ok(())
}

/// The names there are. Each model is there at full size and, with `tiny-` before it, in a form for tests.
fn list() -> Result<(), CliError> {
    let models = CATALOG.iter().flat_map(|row| [row.name.to_owned(), format!("tiny-{}", row.name)]);
    let mixes = MIXES.iter().map(|row| row.name.to_lowercase());
    let lines =
        |names: &mut dyn Iterator<Item = String>| names.map(|name| format!("  {name}\n")).collect::<String>();
    print(format!("models\n{}formats\n{}", lines(&mut { models }), lines(&mut { mixes })))
}
