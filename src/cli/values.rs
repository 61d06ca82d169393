//! What flags take beside plain text and numbers, and llama.cpp's way to spell some flags.

use std::ffi::OsString;
use std::str::FromStr;

use crate::model::CATALOG;
use crate::quant::{FORMATS, Format};

/// llama.cpp's flags of several letters behind one dash, which clap does not know.
const LONG_SHORTS: [(&str, &str); 6] = [
    ("-mt", "--tokenizer"),
    ("-st", "--single-turn"),
    ("-sys", "--system-prompt"),
    ("-pg", "--prompt-gen"),
    ("-npl", "--n-parallel"),
    ("-dev", "--device"),
];

/// The arguments with those flags spelled out.
pub(super) fn spelled_out(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let spell = |arg: OsString| match LONG_SHORTS.iter().find(|(short, _)| arg == *short) {
        Some((_, long)) => OsString::from(long),
        None => arg,
    };
    args.into_iter().map(spell).collect()
}

/// A number, or -1 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OrNone<T>(pub Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "-1" { Ok(Self(None)) } else { text.parse().map(|number| Self(Some(number))) }
    }
}

/// Bytes, with K, M, G or T for powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let scale: u64 = match text[number.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        unit => return Err(format!("`{unit}` is no unit; units are K, M, G and T")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is no number of bytes"))?;
    let bytes = number * (1_u64 << scale) as f64;
    if bytes >= 0.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err("out of range".to_owned()) }
}

/// Two numbers.
pub(super) fn pair(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once(',').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is not two numbers, such as 512,128"))
}

/// A format by ggml's name, in upper or lower case.
pub(super) fn format(text: &str) -> Result<Format, String> {
    let row = FORMATS.iter().find(|row| row.name.eq_ignore_ascii_case(text));
    row.map(|row| row.format).ok_or_else(|| {
        let known: Vec<&str> = FORMATS.iter().map(|row| row.name).collect();
        format!("`{text}` is no format; formats are {}", known.join(", "))
    })
}

/// A named model.
pub(super) fn named(text: &str) -> Result<String, String> {
    match CATALOG.iter().find(|row| row.name == text) {
        Some(row) => Ok(row.name.to_owned()),
        None => {
            let known: Vec<&str> = CATALOG.iter().map(|row| row.name).collect();
            Err(format!("`{text}` is no named model; there are {}", known.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_binary_units() {
        for (text, expected) in
            [("0", 0), ("17", 17), ("2K", 2048), ("1.5g", 3 << 29), ("3MiB", 3 << 20), ("1T", 1 << 40)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "G", "1X", "-1", "nan", "1e300"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn minus_one_is_none() {
        assert_eq!("-1".parse::<OrNone<usize>>(), Ok(OrNone(None)));
        assert_eq!("7".parse::<OrNone<usize>>(), Ok(OrNone(Some(7))));
        assert!("-2".parse::<OrNone<usize>>().is_err());
    }
}
