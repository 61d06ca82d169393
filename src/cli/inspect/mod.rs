//! `inspect`: what a file holds and what it needs, from its header alone.

mod facts;
mod json;
mod text;

use super::args::InspectArgs;
use super::error::CliError;
use super::output::{print, print_json};
use super::source::ModelFile;

use facts::Facts;

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    // A device that is not there is an error, a file that holds no model is not.
    args.load.device.resolved_name()?;
    let facts = Facts::gather(ModelFile::open(&args.model)?, &args.load);
    if args.json { print_json(&json::report(&facts)) } else { print(text::report(&facts)) }
}
