//! `verify`: holds a device's operations to the reference.

use serde_json::{Value, json};

use crate::inference::verify_device;
use crate::verify::{Check, VerifyOptions, n_checks};

use super::args::VerifyArgs;
use super::error::CliError;
use super::output::{note, print, print_json};
use super::reply::random_seed;

/// Rows of a matrix that are computed where not all are asked for.
const ROWS: usize = 64;

pub(super) fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let seed = args.seed.0.unwrap_or_else(random_seed);
    let options = VerifyOptions {
        seed,
        rows: (!args.full).then_some(ROWS),
        formats: args.format.clone(),
        models: args.model.clone(),
    };
    let device = args.device.resolved_name()?;
    let total = n_checks(&options);
    let rows = if args.full { "all rows".to_owned() } else { format!("{ROWS} rows (--full takes all)") };
    note(format_args!(
        "{device}: {total} checks with seed {seed}, {rows} of each matrix, shapes that recur once"
    ));
    if !args.json {
        print(HEADER)?;
    }
    let (mut checks, mut failures, mut printed) = (Vec::new(), 0, Ok(()));
    verify_device(args.device, args.threads.map(std::num::NonZeroUsize::get), &options, &mut |check| {
        failures += usize::from(!check.passed());
        if args.json {
            checks.push(value(check));
        } else if printed.is_ok() {
            printed = print(line(check));
        }
    })?;
    printed?;
    if args.json {
        let rows = options.rows;
        print_json(&json!({
            "device": device, "seed": seed, "rows": rows, "failures": failures, "checks": checks,
        }))?;
    }
    match failures {
        0 => {
            note(format_args!("{total} checks passed"));
            Ok(())
        }
        failures => Err(CliError::Verify { failures, total, seed }),
    }
}

const HEADER: &str = "\
operation          format   shape                              tokens  error    of most  largest  of most  time       result
";

fn line(check: &Check) -> String {
    let (found, most) = (check.deviation, check.budget);
    let result = if check.passed() { "ok" } else { "FAILED" };
    format!(
        "{:<18} {:<8} {:<34} {:>6}  {:<8.1e} {:<8.0e} {:<8.1e} {:<8.0e} {:>7.2} ms {result}\n",
        check.operation.to_string(),
        check.format.name(),
        check.shape,
        check.n_tokens,
        found.relative_l2,
        most.relative_l2,
        found.largest,
        most.largest,
        check.seconds * 1e3,
    )
}

fn value(check: &Check) -> Value {
    // JSON has no infinity: what is no number is null.
    json!({
        "operation": check.operation.to_string(),
        "format": check.format.name(),
        "shape": check.shape,
        "tokens": check.n_tokens,
        "relative_l2": check.deviation.relative_l2,
        "relative_l2_budget": check.budget.relative_l2,
        "largest": check.deviation.largest,
        "largest_budget": check.budget.largest,
        "reason": check.budget.reason,
        "seconds": check.seconds,
        "passed": check.passed(),
    })
}
