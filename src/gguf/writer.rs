//! The writer: metadata and tensor shapes first, tensor data streamed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::error::{GgufError, KeyFault, Place, TensorFault};
use super::header::alignment_of;
use super::limits::within;
use super::metadata::{Metadata, MetadataValue};
use super::reader::Gguf;
use super::tensor::TensorInfo;
use super::value::{write_string, write_value};
use super::{MAGIC, MAX_DIMS, MAX_KEY_BYTES, MAX_NAME_BYTES, split};
use crate::quant::Format;

/// The version that is written.
const VERSION: u32 = 3;

/// Describes a GGUF file and writes it. Tensor data is streamed, so memory holds the header alone.
///
/// ```
/// use worker_orcd::gguf::{Gguf, GgufWriter, MetadataValue};
/// use worker_orcd::quant::Format;
///
/// let mut writer = GgufWriter::new();
/// writer.set("general.architecture", MetadataValue::String("llama".to_owned()));
/// writer.add_tensor("output_norm.weight", &[4], Format::F32)?;
/// let mut bytes = Vec::new();
/// writer.write(&mut bytes, |_, tensor, sink| sink.write_all(&vec![0; tensor.n_bytes as usize]))?;
///
/// let model = Gguf::from_bytes(bytes)?;
/// assert_eq!(model.metadata().str("general.architecture")?, Some("llama"));
/// assert_eq!(model.tensors()[0].dims, [4]);
/// # Ok::<(), worker_orcd::gguf::GgufError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    names: HashSet<String>,
}

/// Where everything of a file will lie, known before a byte is written. For writers that place the pieces themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The bytes from the start of the file to the end of the tensor table. Between them and the first tensor, between
    /// tensors and after the last one the file holds zeros.
    pub header: Vec<u8>,
    /// The tensors, with [`TensorInfo::file_offset`] set.
    pub tensors: Vec<TensorInfo>,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }
    /// The metadata and tensors of an opened model, as one file: the keys that tie shards together are left out.
    ///
    /// # Errors
    ///
    /// None for a model that could be opened; the signature is that of [`GgufWriter::add_tensor`].
    pub fn from_gguf(model: &Gguf) -> Result<Self, GgufError> {
        let mut writer = Self { metadata: model.metadata().clone(), ..Self::default() };
        for key in split::KEYS {
            writer.metadata.remove(key);
        }
        for tensor in model.tensors() {
            writer.add_tensor(&tensor.name, &tensor.dims, tensor.format)?;
        }
        Ok(writer)
    }
    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    /// The metadata, to be edited. `general.alignment`, a u32, decides the alignment of tensors.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
    /// Sets a metadata key.
    pub fn set(&mut self, key: impl Into<String>, value: MetadataValue) -> &mut Self {
        self.metadata.set(key, value);
        self
    }
    /// Adds a tensor at the end of the file; `dims[0]` is the length of a row. Answers its index.
    ///
    /// # Errors
    ///
    /// What the reader would refuse: a name that is too long or taken, too many dimensions, a row that is not a whole
    /// number of blocks, a size that does not fit 64 bits.
    pub fn add_tensor(
        &mut self,
        name: impl Into<String>,
        dims: &[u64],
        format: Format,
    ) -> Result<usize, GgufError> {
        let (name, index) = (name.into(), self.tensors.len());
        within("name length", name.len() as u64, MAX_NAME_BYTES)
            .map_err(|excess| excess.at(Place::TensorEntry(index as u64)))?;
        if dims.len() > MAX_DIMS as usize {
            let fault = TensorFault::DimensionCount { found: u32::try_from(dims.len()).unwrap_or(u32::MAX) };
            return Err(GgufError::Tensor { name, fault });
        }
        if self.names.contains(&name) {
            return Err(GgufError::Tensor { name, fault: TensorFault::DuplicateName });
        }
        let tensor = TensorInfo::unplaced(name, dims.to_vec(), format)?;
        self.names.insert(tensor.name.clone());
        self.tensors.push(tensor);
        Ok(index)
    }
    /// Where everything will lie.
    ///
    /// # Errors
    ///
    /// A metadata key that is empty or too long, a `general.alignment` that is not a power of two stored as a u32, sizes
    /// whose sum does not fit 64 bits.
    pub fn layout(&self) -> Result<Layout, GgufError> {
        let alignment = alignment_of(&self.metadata)?;
        let mut header = self.header_start()?;
        let table_bytes =
            self.tensors.iter().fold(0, |sum: usize, tensor| sum.saturating_add(entry_bytes(tensor)));
        let table_end = header.len().saturating_add(table_bytes) as u64;
        let start = if self.tensors.is_empty() { Some(table_end) } else { padded(table_end, alignment) };

        let mut tensors = self.tensors.clone();
        let mut end = start;
        for tensor in &mut tensors {
            let fault = || TensorFault::TooManyBytes { dims: tensor.dims.clone(), format: tensor.format };
            let placed = end.and_then(|at| Some((at, padded(at.checked_add(tensor.n_bytes)?, alignment)?)));
            let Some((at, next)) = placed else {
                return Err(GgufError::Tensor { name: tensor.name.clone(), fault: fault() });
            };
            tensor.file_offset = at;
            write_entry(&mut header, tensor, at.saturating_sub(start.unwrap_or(0)));
            end = Some(next);
        }
        Ok(Layout { header, tensors, file_bytes: end.unwrap_or(table_end) })
    }
    /// Magic, version, counts and metadata.
    fn header_start(&self) -> Result<Vec<u8>, GgufError> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (index, (key, value)) in self.metadata.iter().enumerate() {
            let place = || Place::Entry(index as u64);
            if key.is_empty() {
                return Err(GgufError::Key { place: place(), fault: KeyFault::Empty });
            }
            within("key length", key.len() as u64, MAX_KEY_BYTES).map_err(|excess| excess.at(place()))?;
            write_string(&mut out, key);
            write_value(&mut out, value);
        }
        Ok(out)
    }
    /// Writes the file; answers its bytes. `fill` writes the data of one tensor, named by index and description, and is
    /// called once for each, in order.
    ///
    /// # Errors
    ///
    /// Those of [`GgufWriter::layout`]; [`GgufError::Write`] where the sink or `fill` fails;
    /// [`TensorFault::WrittenBytes`] where `fill` writes another number of bytes than the tensor has.
    pub fn write(
        &self,
        sink: &mut impl Write,
        mut fill: impl FnMut(usize, &TensorInfo, &mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, GgufError> {
        let layout = self.layout()?;
        let mut sink = Counted { sink, written: 0 };
        sink.write_all(&layout.header).map_err(|error| GgufError::Write { place: Place::Header, error })?;
        for (index, tensor) in layout.tensors.iter().enumerate() {
            let failed = |error| GgufError::Write { place: Place::Tensor(tensor.name.clone()), error };
            sink.pad_to(tensor.file_offset).map_err(failed)?;
            fill(index, tensor, &mut sink).map_err(failed)?;
            let found = sink.written.saturating_sub(tensor.file_offset);
            if found != tensor.n_bytes {
                let fault = TensorFault::WrittenBytes { expected: tensor.n_bytes, found };
                return Err(GgufError::Tensor { name: tensor.name.clone(), fault });
            }
        }
        let end = |error| GgufError::Write { place: Place::End, error };
        sink.pad_to(layout.file_bytes).and_then(|()| sink.flush()).map_err(end)?;
        Ok(layout.file_bytes)
    }
    /// Writes a new file, or over an old one; answers its bytes.
    ///
    /// # Errors
    ///
    /// Those of [`GgufWriter::write`]; [`GgufError::Io`] if the file cannot be created.
    pub fn write_file(
        &self,
        path: impl AsRef<Path>,
        fill: impl FnMut(usize, &TensorInfo, &mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, GgufError> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|error| GgufError::Io {
            action: "create",
            path: path.to_owned(),
            error,
        })?;
        self.write(&mut BufWriter::with_capacity(1 << 20, file), fill)
    }
}

/// The next multiple of the alignment.
fn padded(bytes: u64, alignment: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(alignment)
}

/// Bytes of a tensor's entry: length and name, dimension count, dimensions, type, offset.
fn entry_bytes(tensor: &TensorInfo) -> usize {
    let dims = tensor.dims.len().saturating_mul(8);
    dims.saturating_add(tensor.name.len()).saturating_add(8 + 4 + 4 + 8)
}

fn write_entry(out: &mut Vec<u8>, tensor: &TensorInfo, offset: u64) {
    write_string(out, &tensor.name);
    out.extend((tensor.dims.len() as u32).to_le_bytes());
    tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
    out.extend(tensor.format.row().ggml_id.to_le_bytes());
    out.extend(offset.to_le_bytes());
}

/// A sink that knows how much it has taken.
struct Counted<'a, W> {
    sink: &'a mut W,
    written: u64,
}

impl<W: Write> Counted<'_, W> {
    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        let missing = offset.saturating_sub(self.written);
        io::copy(&mut io::Read::take(io::repeat(0), missing), self).map(|_| ())
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.written = self.written.saturating_add(count as u64);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
