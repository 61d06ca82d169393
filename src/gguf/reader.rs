//! An opened model: files, metadata, tensor table, views.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::path::Path;

use super::error::{GgufError, Place, SplitFault, TensorFault};
use super::header::Header;
use super::limits::{Budget, Limits, within};
use super::metadata::Metadata;
use super::mmap::FileBytes;
use super::split::Split;
use super::tensor::TensorInfo;

/// An opened model: one GGUF file, or all shards of a split one.
///
/// When it is open, every tensor's place is proven: inside its file, aligned, apart from all others. Metadata is owned.
/// Tensor data stays on disk until [`Gguf::data`] or [`Gguf::read_at`] asks for it.
pub struct Gguf {
    files: Vec<FileBytes>,
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
}

impl Gguf {
    /// Opens a model with the default [`Limits`]. Any shard of a split model opens all of them.
    ///
    /// # Errors
    ///
    /// [`GgufError::Io`] and [`GgufError::NotAFile`] if there is no such file; all others mean a bad file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        Self::open_with(path, &Limits::default())
    }
    /// Opens a model, with limits of the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`].
    pub fn open_with(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, GgufError> {
        let path = path.as_ref();
        Self::load(FileBytes::open(path)?, Some(path), limits)
    }
    /// Reads a model from memory, with the default [`Limits`]. A shard of a split model is refused.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`], without those of the file system.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GgufError> {
        Self::from_bytes_with(bytes, &Limits::default())
    }
    /// Reads a model from memory, with limits of the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`Gguf::from_bytes`].
    pub fn from_bytes_with(bytes: Vec<u8>, limits: &Limits) -> Result<Self, GgufError> {
        Self::load(FileBytes::Owned(bytes), None, limits)
    }

    fn load(opened: FileBytes, path: Option<&Path>, limits: &Limits) -> Result<Self, GgufError> {
        let mut budget = Budget::new(limits);
        let (header, split) = in_file(path, || {
            let header = Header::parse(opened.as_slice(), 0, &mut budget)?;
            let split = Split::of(&header.metadata, path)?;
            within("shard count", split.count, limits.shards).map_err(|excess| excess.at(Place::Header))?;
            Ok((header, split))
        })?;
        let model = match path {
            Some(path) if split.count > 1 => {
                drop(header);
                Self::load_shards(&split, path, limits)?
            }
            _ => Self::single(opened, header)?,
        };
        in_file(path, || split.check_tensors(&model.metadata, model.tensors.len() as u64))?;
        Ok(model)
    }
    fn single(file: FileBytes, header: Header) -> Result<Self, GgufError> {
        let mut model = Self {
            version: header.version,
            alignment: header.alignment,
            metadata: header.metadata,
            files: Vec::new(),
            tensors: Vec::new(),
            index: HashMap::new(),
        };
        model.add_file(file, header.tensors)?;
        Ok(model)
    }
    /// Reads all shards in order; the one that was opened first is read again, at its place.
    fn load_shards(split: &Split, opened: &Path, limits: &Limits) -> Result<Self, GgufError> {
        let mut budget = Budget::new(limits);
        let mut model: Option<Self> = None;
        for index in 0..split.count {
            let path = split.shard_path(opened, index);
            let file = in_file(Some(&path), || open_shard(&path, index, split.count))?;
            let header = in_file(Some(&path), || {
                let header = Header::parse(file.as_slice(), index as usize, &mut budget)?;
                split.check_shard(&header.metadata, index)?;
                Ok(header)
            })?;
            match &mut model {
                None => model = Some(Self::single(file, header)?),
                Some(model) => model.add_file(file, header.tensors)?,
            }
        }
        model.ok_or(GgufError::Split { fault: SplitFault::MissingShard { number: 1, count: split.count } })
    }
    fn add_file(&mut self, file: FileBytes, tensors: Vec<TensorInfo>) -> Result<(), GgufError> {
        let start = self.tensors.len();
        for (at, tensor) in tensors.iter().enumerate() {
            match self.index.entry(tensor.name.clone()) {
                Entry::Vacant(place) => place.insert(start.saturating_add(at)),
                Entry::Occupied(place) => {
                    let fault = TensorFault::DuplicateName;
                    return in_file(file.path(), || {
                        Err(GgufError::Tensor { name: place.key().clone(), fault })
                    });
                }
            };
        }
        self.tensors.extend(tensors);
        self.files.push(file);
        Ok(())
    }

    /// The metadata; of a split model, that of the first shard.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }
    /// What every tensor's offset is a multiple of, in bytes; of a split model, in the first shard.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }
    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.as_slice().len() as u64))
    }
    /// The path of the first file; `None` for a model in memory.
    pub fn path(&self) -> Option<&Path> {
        self.shard_path(0)
    }
    /// How many files there are.
    pub fn n_shards(&self) -> usize {
        self.files.len()
    }
    /// The path of a file, counted from 0; `None` for a model in memory.
    pub fn shard_path(&self, shard: usize) -> Option<&Path> {
        self.files.get(shard)?.path()
    }
    /// All tensors, in file order, shard after shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// A view of a tensor's bytes in the map. `tensor` must be of this model.
    ///
    /// If another process cuts the file while the view is used, the system ends this process with a bus error. Loaders
    /// use [`Gguf::read_at`], which has no such risk.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        let range = || {
            let start = usize::try_from(tensor.file_offset).ok()?;
            let end = start.checked_add(usize::try_from(tensor.n_bytes).ok()?)?;
            self.files.get(tensor.shard)?.as_slice().get(start..end)
        };
        range().unwrap_or_default()
    }
    /// Copies `into.len()` bytes of a tensor, from `offset` bytes after its start, with a positioned read of the file.
    ///
    /// # Errors
    ///
    /// [`TensorFault::OutsideTensor`] if the tensor has no such bytes, [`TensorFault::Shrunk`] if the file has become
    /// shorter than it was when it was opened, [`GgufError::Io`] if the system cannot read it.
    pub fn read_at(&self, tensor: &TensorInfo, offset: u64, into: &mut [u8]) -> Result<(), GgufError> {
        let failed = |fault| Err(GgufError::Tensor { name: tensor.name.clone(), fault });
        let (wanted, n_bytes) = (into.len() as u64, tensor.n_bytes);
        if n_bytes.checked_sub(offset).is_none_or(|after| wanted > after) {
            return failed(TensorFault::OutsideTensor { offset, wanted, n_bytes });
        }
        let Some(file) = self.files.get(tensor.shard) else {
            return failed(TensorFault::OutsideTensor { offset, wanted, n_bytes: 0 });
        };
        let offset = tensor.file_offset.saturating_add(offset);
        match file.read_at(offset, into)? as u64 {
            available if available < wanted => {
                let fault = TensorFault::Shrunk { offset, wanted, available };
                in_file(file.path(), || failed(fault))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path())
            .field("shards", &self.n_shards())
            .field("version", &self.version)
            .field("metadata_keys", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

fn open_shard(path: &Path, index: u64, count: u64) -> Result<FileBytes, GgufError> {
    FileBytes::open(path).map_err(|error| match error {
        GgufError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => {
            GgufError::Split { fault: SplitFault::MissingShard { number: index.saturating_add(1), count } }
        }
        other => other,
    })
}

/// Names the file in an error that does not name it yet.
fn in_file<T>(path: Option<&Path>, run: impl FnOnce() -> Result<T, GgufError>) -> Result<T, GgufError> {
    run().map_err(|fault| match (path, fault) {
        (None, fault)
        | (_, fault @ (GgufError::Io { .. } | GgufError::NotAFile { .. } | GgufError::InFile { .. })) => {
            fault
        }
        (Some(path), fault) => GgufError::InFile { path: path.to_owned(), fault: Box::new(fault) },
    })
}
