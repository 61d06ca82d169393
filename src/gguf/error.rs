//! What can be wrong with a file.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::quant::{FORMATS, Format};

/// A metadata key that is missing or holds something else than its reader needs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// The key is not in the file.
    #[error("metadata key `{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The key holds a value of another type.
    #[error("metadata key `{key}` holds {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What the reader needs.
        expected: &'static str,
        /// What the file holds.
        found: &'static str,
    },
    /// The value has the right type and cannot be used.
    #[error("metadata key `{key}` is {value}, expected {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value, as text.
        value: String,
        /// What would have been right.
        expected: String,
    },
}

/// A part of a GGUF file, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Magic, version and counts.
    Header,
    /// A metadata entry whose key is not known yet; entries count from 0.
    Entry(u64),
    /// The value of this metadata key.
    Value(String),
    /// An entry of the tensor table whose name is not known yet; entries count from 0.
    TensorEntry(u64),
    /// The tensor of this name.
    Tensor(String),
    /// What follows the last tensor.
    End,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Entry(index) => write!(f, "metadata entry {index}"),
            Self::Value(key) => write!(f, "metadata key `{key}`"),
            Self::TensorEntry(index) => write!(f, "tensor table entry {index}"),
            Self::Tensor(name) => write!(f, "tensor `{name}`"),
            Self::End => f.write_str("end of the file"),
        }
    }
}

/// What is wrong with a metadata entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFault {
    /// The key has no bytes.
    #[error("the key is empty")]
    Empty,
    /// The key stood in the file before.
    #[error("the key occurs twice")]
    Duplicate,
    /// The number names no value type of the format.
    #[error("value type {id} is unknown, expected 0 to 12")]
    UnknownType {
        /// The number in the file.
        id: u32,
    },
    /// An array of arrays.
    #[error("it holds an array of arrays, which is not supported")]
    NestedArray,
    /// A bool that is neither 0 nor 1.
    #[error("a bool is stored as {found}, expected 0 or 1")]
    BadBool {
        /// The byte in the file.
        found: u8,
    },
}

/// What is wrong with a tensor. Offsets count from the start of the file's data section unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorFault {
    /// The name stood in the table, or in another shard's table, before.
    #[error("the name occurs twice")]
    DuplicateName,
    /// More dimensions than the format knows.
    #[error("it has {found} dimensions, expected at most {}", super::MAX_DIMS)]
    DimensionCount {
        /// The number in the file.
        found: u32,
    },
    /// The shape's elements cannot be counted in 63 bits.
    #[error("its shape {dims:?} has too many elements, expected a product below 2^63")]
    TooManyElements {
        /// The shape, row length first.
        dims: Vec<u64>,
    },
    /// ggml knows the type, this crate does not read it.
    #[error(
        "it is stored as {name} (type {id}), expected one of {}; quantize the model to one of these",
        format_names()
    )]
    UnsupportedFormat {
        /// The number in the file.
        id: u32,
        /// ggml's name of it.
        name: &'static str,
    },
    /// The number names no tensor type.
    #[error("its type {id} is unknown, expected one of {}", format_names())]
    UnknownFormat {
        /// The number in the file.
        id: u32,
    },
    /// A row is not a whole number of blocks.
    #[error("its rows have {n_cols} elements, expected a multiple of {} for {format}", format.block_elements())]
    RaggedRow {
        /// Elements of a row.
        n_cols: u64,
        /// The format.
        format: Format,
    },
    /// The size in bytes does not fit 64 bits.
    #[error("its shape {dims:?} in {format} has more bytes than 64 bits can count")]
    TooManyBytes {
        /// The shape, row length first.
        dims: Vec<u64>,
        /// The format.
        format: Format,
    },
    /// The data would end after the end of the file.
    #[error(
        "its {n_bytes} bytes at data offset {offset} pass the end of the data section, which has {available} bytes"
    )]
    PastEnd {
        /// Offset of the tensor.
        offset: u64,
        /// Bytes of the tensor.
        n_bytes: u64,
        /// Bytes of the file's data section.
        available: u64,
    },
    /// The offset is no multiple of the file's alignment.
    #[error("its data offset {offset} is not a multiple of the alignment {alignment}")]
    Misaligned {
        /// Offset of the tensor.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Two tensors claim the same bytes.
    #[error("its data at offset {offset} lies inside tensor `{other}`, which ends at {other_end}")]
    Overlap {
        /// Offset of the tensor.
        offset: u64,
        /// The tensor that starts before it.
        other: String,
        /// Where that one ends.
        other_end: u64,
    },
    /// The caller asked for bytes that are not the tensor's.
    #[error("{wanted} bytes at {offset} were asked for, it has {n_bytes}")]
    OutsideTensor {
        /// Offset inside the tensor.
        offset: u64,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes of the tensor.
        n_bytes: u64,
    },
    /// The file has become shorter since it was opened.
    #[error(
        "{wanted} bytes at file offset {offset} were wanted, {available} were there: \
         the file has been cut since it was opened"
    )]
    Shrunk {
        /// Offset from the start of the file.
        offset: u64,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that could be read.
        available: u64,
    },
    /// The writer was given another number of bytes than the tensor has.
    #[error("{found} bytes were written, expected {expected}")]
    WrittenBytes {
        /// Bytes of the tensor.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
}

/// The formats that this crate reads, for messages.
fn format_names() -> String {
    FORMATS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}

/// What is wrong with a model that is split into several files.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitFault {
    /// A shard's file is not there.
    #[error("shard {number} of {count} is missing; put all shards into one directory")]
    MissingShard {
        /// The shard, counted from 1.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// `split.count` says several files, the file's name is not a shard's.
    #[error("this is shard {number} of {count}, so its name must end in `-{number:05}-of-{count:05}.gguf`")]
    BadName {
        /// The shard, counted from 1.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// The name is a shard's, the metadata is not.
    #[error("the name says shard {number} of {count}, the metadata has no `split.count`")]
    NoSplitKeys {
        /// The shard, counted from 1.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// A shard's metadata does not agree with its place among the shards.
    #[error("`{key}` is {found}, expected {expected}")]
    Mismatch {
        /// The metadata key.
        key: &'static str,
        /// The value in the file.
        found: u64,
        /// The value that fits the other shards.
        expected: u64,
    },
    /// One shard was given as bytes, so that the others cannot be found.
    #[error("one shard of {count} was given as bytes; open the model by its path")]
    OnlyBytes {
        /// How many there are.
        count: u64,
    },
}

/// A GGUF file that cannot be read, or not written.
#[derive(Debug, Error)]
pub enum GgufError {
    /// The operating system refused.
    #[error("cannot {action} `{path}`: {error}")]
    Io {
        /// What was tried: `open`, `map`, `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// The path leads to a directory, a pipe or a device.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The fault of one file on disk.
    #[error("`{path}`: {fault}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<GgufError>,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with \"{}\", expected \"GGUF\"", found.escape_ascii())]
    NotGguf {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A version that this crate does not read.
    #[error("GGUF version {found} is not supported, expected 2 or 3; convert the model to one of these")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// A file written for big-endian machines.
    #[error(
        "this is a big-endian GGUF file (version {version}), expected little-endian; convert the model anew"
    )]
    BigEndian {
        /// The version, read as big-endian.
        version: u32,
    },
    /// The file ends too early, or a count in it is a lie.
    #[error("{place}: {what} at offset {offset} needs {wanted} bytes, the file has {available} left")]
    Truncated {
        /// The part of the file.
        place: Place,
        /// What was to be read.
        what: &'static str,
        /// Where, from the start of the file.
        offset: u64,
        /// Bytes needed, at least.
        wanted: u64,
        /// Bytes from there to the end.
        available: u64,
    },
    /// A count or length beyond [`Limits`](super::Limits) or beyond what the format allows.
    #[error("{place}: {what} is {found}, the limit is {limit}")]
    Limit {
        /// The part of the file.
        place: Place,
        /// What is counted.
        what: &'static str,
        /// The value in the file.
        found: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{place}: {what} is not valid UTF-8 at offset {offset}")]
    InvalidUtf8 {
        /// The part of the file.
        place: Place,
        /// What was to be read.
        what: &'static str,
        /// The first wrong byte, from the start of the file.
        offset: u64,
    },
    /// A metadata entry cannot be read.
    #[error("{place}: {fault}")]
    Key {
        /// The entry.
        place: Place,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// A metadata value is missing or unusable.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A tensor cannot be used.
    #[error("tensor `{name}`: {fault}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        fault: TensorFault,
    },
    /// The files of a split model do not fit together.
    #[error("split model: {fault}")]
    Split {
        /// What is wrong with them.
        fault: SplitFault,
    },
    /// The writer's sink refused.
    #[error("cannot write {place}: {error}")]
    Write {
        /// The part of the file.
        place: Place,
        /// The sink's answer.
        error: io::Error,
    },
}

impl GgufError {
    /// The error without the file's name: what [`GgufError::InFile`] wraps, or the error itself.
    pub fn fault(&self) -> &GgufError {
        match self {
            Self::InFile { fault, .. } => fault.fault(),
            other => other,
        }
    }
}
