//! Models split into several files: `name-00001-of-00003.gguf` and its neighbours.
//!
//! Source: `gguf-split` of llama.cpp. All metadata stands in the first shard; each shard holds `split.no` (counted from
//! 0), `split.count` and `split.tensors.count` (tensors of all shards).

use std::path::{Path, PathBuf};

use super::error::{GgufError, SplitFault};
use super::metadata::Metadata;

/// The keys that tie shards together.
pub(super) const KEYS: [&str; 3] = [NO, COUNT, TENSORS];
const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// A shard's place, as its file name says it.
pub(super) struct ShardName<'a> {
    stem: &'a str,
    /// Counted from 1.
    number: u64,
    count: u64,
}

impl<'a> ShardName<'a> {
    /// The parts of `<stem>-00001-of-00003.gguf`, or `None` for any other name.
    fn parse(path: &'a Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        Some(Self { stem, number: five_digits(number)?, count: five_digits(count)? })
    }
}

fn five_digits(text: &str) -> Option<u64> {
    let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// How the files of a model lie together.
pub(super) struct Split {
    /// How many files there are; 1 for a model that is not split.
    pub(super) count: u64,
}

impl Split {
    /// Reads where a file stands among its shards and compares it with its name.
    pub(super) fn of(metadata: &Metadata, path: Option<&Path>) -> Result<Self, GgufError> {
        let split_error = |fault| GgufError::Split { fault };
        let name = path.and_then(ShardName::parse);
        let Some(count) = metadata.u64(COUNT)?.filter(|&count| count > 1) else {
            return match name {
                Some(ShardName { number, count, .. }) if count > 1 => {
                    Err(split_error(SplitFault::NoSplitKeys { number, count }))
                }
                _ => Ok(Self { count: 1 }),
            };
        };
        let number = metadata.require(NO, Metadata::u64)?.saturating_add(1);
        match (path, name) {
            (None, _) => Err(split_error(SplitFault::OnlyBytes { count })),
            (_, Some(name)) if name.number == number && name.count == count => Ok(Self { count }),
            _ => Err(split_error(SplitFault::BadName { number, count })),
        }
    }
    /// The path of shard `index` (counted from 0), beside the one that was opened.
    pub(super) fn shard_path(&self, opened: &Path, index: u64) -> PathBuf {
        let stem = ShardName::parse(opened).map_or("", |name| name.stem);
        let (number, count) = (index.saturating_add(1), self.count);
        opened.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf"))
    }
    /// Compares the metadata of shard `index` with its place.
    pub(super) fn check_shard(&self, metadata: &Metadata, index: u64) -> Result<(), GgufError> {
        expect(NO, metadata.require(NO, Metadata::u64)?, index)?;
        expect(COUNT, metadata.require(COUNT, Metadata::u64)?, self.count)
    }
    /// Compares the number of tensors in all shards with what the first shard says.
    pub(super) fn check_tensors(&self, metadata: &Metadata, n_tensors: u64) -> Result<(), GgufError> {
        match self.count {
            1 => Ok(()),
            _ => expect(TENSORS, metadata.require(TENSORS, Metadata::u64)?, n_tensors),
        }
    }
}

fn expect(key: &'static str, found: u64, expected: u64) -> Result<(), GgufError> {
    if found == expected {
        Ok(())
    } else {
        Err(GgufError::Split { fault: SplitFault::Mismatch { key, found, expected } })
    }
}
