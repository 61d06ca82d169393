//! What goes to stdout and stderr: JSON, tables, numbers for people.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::inference::LoadTimes;

use super::error::CliError;

/// Says something to whoever sits there. A closed stderr is no reason to stop.
pub(super) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints text as it is, at once.
pub(super) fn print(text: impl AsRef<[u8]>) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    Ok(stdout.flush()?)
}

/// Prints a value on one line.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_vec(value).map_err(io::Error::from)?;
    text.push(b'\n');
    print(text)
}

/// Prints a value on many lines.
pub(super) fn print_pretty_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::from)?;
    text.push(b'\n');
    print(text)
}

/// A single as JSON: the shortest decimal that is this single, `null` for what JSON has no number for.
pub(super) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Bytes for people: `2.23 GiB`.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, scale)| bytes >> scale > 0) {
        Some((unit, scale)) => format!("{:.2} {unit}", bytes as f64 / (1_u64 << scale) as f64),
        None => format!("{bytes} B"),
    }
}

/// A count for people: `3.82 B`.
pub(super) fn count(n: u64) -> String {
    let units = [("B", 1e9), ("M", 1e6), ("K", 1e3)];
    match units.into_iter().find(|(_, scale)| n as f64 >= *scale) {
        Some((unit, scale)) => format!("{:.2} {unit}", n as f64 / scale),
        None => n.to_string(),
    }
}

/// What loading took: `loaded in 1.20 s: read 2.23 GiB in 0.90 s, 2.66 GB/s`, and so on for each stage that there was.
pub(super) fn loading(times: &LoadTimes) -> String {
    let stages = times.stages().into_iter().filter_map(|(name, stage)| {
        let rate = stage.bytes_per_second()? / 1e9;
        Some(format!("{name} {} in {:.2} s, {rate:.2} GB/s", size(stage.bytes), stage.time.as_secs_f64()))
    });
    let stages: Vec<String> = stages.collect();
    format!("loaded in {:.2} s: {}", times.total.as_secs_f64(), stages.join("; "))
}

/// Digits in groups of three: `2,396,770,144`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let groups = std::iter::once(&digits[..first])
        .chain((first..digits.len()).step_by(3).map(|at| &digits[at..at + 3]))
        .filter(|group| !group.is_empty());
    groups.collect::<Vec<_>>().join(",")
}

/// Lines of aligned columns, indented; `alignment` has `<` or `>` for each column.
pub(super) fn table(alignment: &str, rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..alignment.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for ((cell, width), side) in row.iter().zip(&widths).zip(alignment.chars()) {
            line += &if side == '>' { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(2_396_770_144), "2,396,770,144");
        assert_eq!((size(17), size(3 << 29)), ("17 B".to_owned(), "1.50 GiB".to_owned()));
        assert_eq!((count(999), count(3_821_079_552)), ("999".to_owned(), "3.82 B".to_owned()));
    }

    #[test]
    fn singles_are_printed_as_they_were_written() {
        assert_eq!(number(1e-5).to_string(), "0.00001");
        assert_eq!(number(1.190_238_1).to_string(), "1.1902381");
        assert_eq!(number(f32::NAN), Value::Null);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["bcd".to_owned(), "7".to_owned()]];
        assert_eq!(table("<>", &rows), "  a    10\n  bcd   7\n");
    }
}
