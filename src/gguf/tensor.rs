//! The tensor table: entries as they stand in the file, and the proof that turns them into views.

use super::error::{GgufError, TensorFault};
use crate::quant::Format;

/// Tensor types of ggml that this crate does not read, for messages. Source: `enum ggml_type` of `ggml.h`.
const UNSUPPORTED: [(u32, &str); 26] = [
    (4, "Q4_2, which ggml has dropped"),
    (5, "Q4_3, which ggml has dropped"),
    (9, "Q8_1"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4, which ggml has dropped"),
    (32, "Q4_0_4_8, which ggml has dropped"),
    (33, "Q4_0_8_8, which ggml has dropped"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4, which ggml has dropped"),
    (37, "IQ4_NL_4_8, which ggml has dropped"),
    (38, "IQ4_NL_8_8, which ggml has dropped"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// A tensor of an opened file: its place is proven to lie inside the file, aligned, and apart from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name.
    pub name: String,
    /// The shape in ggml's order: `dims[0]` is the length of a row. Empty for a scalar; a dimension may be 0.
    pub dims: Vec<u64>,
    /// How the weights are stored.
    pub format: Format,
    /// Bytes of the data.
    pub n_bytes: u64,
    pub(super) shard: usize,
    pub(super) file_offset: u64,
}

impl TensorInfo {
    /// A tensor that has no place yet, if its shape is possible.
    pub(super) fn unplaced(name: String, dims: Vec<u64>, format: Format) -> Result<Self, GgufError> {
        match data_bytes(&dims, format) {
            Ok(n_bytes) => Ok(Self { name, dims, format, n_bytes, shard: 0, file_offset: 0 }),
            Err(fault) => Err(GgufError::Tensor { name, fault }),
        }
    }
    /// Elements in all.
    pub fn n_elements(&self) -> u64 {
        self.n_cols().saturating_mul(self.n_rows())
    }
    /// Elements of a row: `dims[0]`, 1 for a scalar.
    pub fn n_cols(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }
    /// Rows: the product of all dimensions but the first.
    pub fn n_rows(&self) -> u64 {
        self.dims.iter().skip(1).fold(1, |rows, &dim| rows.saturating_mul(dim))
    }
    /// Where the data starts, in bytes from the start of its file.
    pub fn file_offset(&self) -> u64 {
        self.file_offset
    }
    /// Which of the model's files holds it, counted from 0.
    pub fn shard(&self) -> usize {
        self.shard
    }
}

/// Bytes of a tensor, if its elements and bytes can be counted and its rows are whole blocks.
///
/// A dimension of 0 is legal; the others must still have a product below 2^63, so that no later product overflows.
fn data_bytes(dims: &[u64], format: Format) -> Result<u64, TensorFault> {
    let product = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim.max(1)));
    if product.is_none_or(|product| product > i64::MAX as u64) {
        return Err(TensorFault::TooManyElements { dims: dims.to_vec() });
    }
    let n_cols = dims.first().copied().unwrap_or(1);
    if !n_cols.is_multiple_of(format.block_elements() as u64) {
        return Err(TensorFault::RaggedRow { n_cols, format });
    }
    let n_rows = dims.iter().skip(1).fold(1_u64, |rows, &dim| rows.saturating_mul(dim));
    let bytes = format.row_bytes(n_cols).and_then(|row| row.checked_mul(n_rows));
    bytes.ok_or_else(|| TensorFault::TooManyBytes { dims: dims.to_vec(), format })
}

/// An entry of the tensor table, read and not yet believed.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dims: Vec<u64>,
    pub(super) type_id: u32,
    /// From the start of the data section.
    pub(super) offset: u64,
}

/// Where a file's tensor data lies.
pub(super) struct DataSection {
    /// Which of the model's files it is.
    pub(super) shard: usize,
    /// From the start of the file.
    pub(super) start: u64,
    /// Bytes to the end of the file.
    pub(super) n_bytes: u64,
    /// What every offset is a multiple of.
    pub(super) alignment: u64,
}

impl DataSection {
    /// Proves type, shape, size, alignment and place of every tensor, and that no two share a byte.
    ///
    /// Holes between tensors are accepted, as is padding that is missing after the last one.
    pub(super) fn validate(&self, entries: Vec<Entry>) -> Result<Vec<TensorInfo>, GgufError> {
        let tensors = entries.into_iter().map(|entry| self.place(entry)).collect::<Result<Vec<_>, _>>()?;
        self.check_overlap(&tensors)?;
        Ok(tensors)
    }
    fn place(&self, entry: Entry) -> Result<TensorInfo, GgufError> {
        let Entry { name, dims, type_id, offset } = entry;
        let format = match format_of(type_id) {
            Ok(format) => format,
            Err(fault) => return Err(GgufError::Tensor { name, fault }),
        };
        let tensor = TensorInfo::unplaced(name, dims, format)?;
        match self.file_offset(offset, tensor.n_bytes) {
            Ok(file_offset) => Ok(TensorInfo { shard: self.shard, file_offset, ..tensor }),
            Err(fault) => Err(GgufError::Tensor { name: tensor.name, fault }),
        }
    }
    fn file_offset(&self, offset: u64, n_bytes: u64) -> Result<u64, TensorFault> {
        let available = self.n_bytes;
        if available.checked_sub(offset).is_none_or(|after| n_bytes > after) {
            return Err(TensorFault::PastEnd { offset, n_bytes, available });
        }
        if !offset.is_multiple_of(self.alignment) {
            return Err(TensorFault::Misaligned { offset, alignment: self.alignment });
        }
        self.start.checked_add(offset).ok_or(TensorFault::PastEnd { offset, n_bytes, available })
    }
    /// Every tensor lies inside the file, so no sum here can overflow.
    fn check_overlap(&self, tensors: &[TensorInfo]) -> Result<(), GgufError> {
        let mut in_order: Vec<&TensorInfo> = tensors.iter().filter(|tensor| tensor.n_bytes > 0).collect();
        in_order.sort_unstable_by_key(|tensor| tensor.file_offset);
        for (first, second) in in_order.iter().zip(in_order.iter().skip(1)) {
            let end = first.file_offset.saturating_add(first.n_bytes);
            if end > second.file_offset {
                let fault = TensorFault::Overlap {
                    offset: second.file_offset.saturating_sub(self.start),
                    other: first.name.clone(),
                    other_end: end.saturating_sub(self.start),
                };
                return Err(GgufError::Tensor { name: second.name.clone(), fault });
            }
        }
        Ok(())
    }
}

/// The format of a type number.
fn format_of(id: u32) -> Result<Format, TensorFault> {
    Format::from_ggml_id(id).ok_or_else(|| match UNSUPPORTED.iter().find(|(known, _)| *known == id) {
        Some(&(id, name)) => TensorFault::UnsupportedFormat { id, name },
        None => TensorFault::UnknownFormat { id },
    })
}
