//! The bytes of one file: mapped from disk, or owned.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::GgufError;

/// The bytes of one file.
pub(super) enum FileBytes {
    /// A file on disk, seen through a read-only map and readable at a position.
    Mapped {
        /// Where it was opened.
        path: PathBuf,
        /// For positioned reads.
        file: File,
        /// `None` for an empty file, which cannot be mapped.
        map: Option<Mmap>,
    },
    /// Bytes that the caller brought.
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Opens and maps a regular file.
    pub(super) fn open(path: &Path) -> Result<Self, GgufError> {
        let failed = |action| move |error| GgufError::Io { action, path: path.to_owned(), error };
        // Asked before opening, because opening a pipe waits for its writer.
        if !std::fs::metadata(path).map_err(failed("open"))?.is_file() {
            return Err(GgufError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(failed("open"))?;
        let n_bytes = file.metadata().map_err(failed("open"))?.len();
        let map = match usize::try_from(n_bytes) {
            Ok(0) => None,
            Ok(n_bytes) => Some(map(&file, n_bytes).map_err(failed("map"))?),
            Err(_) => return Err(failed("map")(io::Error::from(io::ErrorKind::FileTooLarge))),
        };
        Ok(Self::Mapped { path: path.to_owned(), file, map })
    }
    /// All bytes.
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map.as_deref().unwrap_or_default(),
            Self::Owned(bytes) => bytes,
        }
    }
    /// The path, if there is a file.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Mapped { path, .. } => Some(path),
            Self::Owned(_) => None,
        }
    }
    /// Copies bytes from a position without touching the map; answers how many the file still has, up to the length
    /// of `into`.
    pub(super) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, GgufError> {
        match self {
            Self::Mapped { path, file, .. } => read_full_at(file, offset, into)
                .map_err(|error| GgufError::Io { action: "read", path: path.clone(), error }),
            Self::Owned(bytes) => {
                let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or(&[]);
                let count = from.len().min(into.len());
                if let (Some(into), Some(from)) = (into.get_mut(..count), from.get(..count)) {
                    into.copy_from_slice(from);
                }
                Ok(count)
            }
        }
    }
}

/// Maps the first `n_bytes` of a file, read-only.
///
/// What is not promised: that the file keeps its length and bytes; no portable call can hold them. If another process
/// cuts the file while it is mapped, touching a page past the new end is a bus error. Therefore only two things look at
/// the map: the header reader, right after the length was asked, after which all metadata is owned; and `Gguf::data`,
/// whose callers accept it. Loaders use `Gguf::read_at`, where a cut file is an error.
fn map(file: &File, n_bytes: usize) -> io::Result<Mmap> {
    // SAFETY: the map is read-only, `n_bytes` is the file's length as the system just told it, and the `Mmap` owns the
    // mapping, so no slice outlives it. The bytes are only ever read as `u8`, for which every value is valid. Nothing
    // read from them is relied on after it could have changed: numbers are copied before they are compared, text is
    // copied before it is checked, and `validate` keeps its own copies of offsets and sizes. That nobody cuts or
    // rewrites the file meanwhile is the limit stated above.
    unsafe { MmapOptions::new().len(n_bytes).map(file) }
}

/// Reads until `into` is full or the file ends.
fn read_full_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0_usize;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read_some_at(file, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(unix)]
fn read_some_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(windows)]
fn read_some_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}
