//! GGML block formats: how a row of weights is stored, and how it turns into numbers.
//!
//! Everything the crate knows of a format stands in one row of [`FORMATS`]. Source of the layouts: `ggml-common.h`
//! and `ggml-quants.c` of ggml.

/// A GGML tensor format that this crate reads. Names are ggml's own.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// 32 weights of 4 bits, one scale.
    Q4_0,
    /// 32 weights of 4 bits, scale and minimum.
    Q4_1,
    /// 32 weights of 5 bits, one scale.
    Q5_0,
    /// 32 weights of 5 bits, scale and minimum.
    Q5_1,
    /// 32 weights of 8 bits, one scale.
    Q8_0,
    /// 256 weights of 2 bits, 16 scales and minima of 4 bits.
    Q2_K,
    /// 256 weights of 3 bits, 16 scales of 6 bits.
    Q3_K,
    /// 256 weights of 4 bits, 8 scales and minima of 6 bits.
    Q4_K,
    /// 256 weights of 5 bits, 8 scales and minima of 6 bits.
    Q5_K,
    /// 256 weights of 6 bits, 16 scales of 8 bits.
    Q6_K,
    /// 256 weights of 8 bits, one single-precision scale.
    Q8_K,
    /// 32 weights of 4 bits through a non-linear table, one scale.
    IQ4_NL,
    /// 256 weights of 4 bits through a non-linear table, 8 scales of 6 bits.
    IQ4_XS,
}

/// What the crate knows of one format.
#[derive(Debug)]
pub struct FormatRow {
    /// The format.
    pub format: Format,
    /// ggml's name.
    pub name: &'static str,
    /// The number that a GGUF tensor table holds.
    pub ggml_id: u32,
    /// Weights in a block; a row's length is a multiple of it.
    pub block_elements: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
}

const fn row(
    format: Format,
    name: &'static str,
    ggml_id: u32,
    block_elements: usize,
    block_bytes: usize,
) -> FormatRow {
    FormatRow { format, name, ggml_id, block_elements, block_bytes }
}

/// One row per format.
pub static FORMATS: [FormatRow; 16] = [
    row(Format::F32, "F32", 0, 1, 4),
    row(Format::F16, "F16", 1, 1, 2),
    row(Format::BF16, "BF16", 30, 1, 2),
    row(Format::Q4_0, "Q4_0", 2, 32, 18),
    row(Format::Q4_1, "Q4_1", 3, 32, 20),
    row(Format::Q5_0, "Q5_0", 6, 32, 22),
    row(Format::Q5_1, "Q5_1", 7, 32, 24),
    row(Format::Q8_0, "Q8_0", 8, 32, 34),
    row(Format::Q2_K, "Q2_K", 10, 256, 84),
    row(Format::Q3_K, "Q3_K", 11, 256, 110),
    row(Format::Q4_K, "Q4_K", 12, 256, 144),
    row(Format::Q5_K, "Q5_K", 13, 256, 176),
    row(Format::Q6_K, "Q6_K", 14, 256, 210),
    row(Format::Q8_K, "Q8_K", 15, 256, 292),
    row(Format::IQ4_NL, "IQ4_NL", 20, 32, 18),
    row(Format::IQ4_XS, "IQ4_XS", 23, 256, 136),
];

impl Format {
    /// This format's row of [`FORMATS`].
    pub fn row(self) -> &'static FormatRow {
        &FORMATS[self as usize]
    }
    /// ggml's name, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The format that a GGUF tensor table names by this number, if this crate reads it.
    pub fn from_ggml_id(id: u32) -> Option<Format> {
        FORMATS.iter().find(|row| row.ggml_id == id).map(|row| row.format)
    }
    /// Weights in a block.
    pub fn block_elements(self) -> usize {
        self.row().block_elements
    }
    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }
    /// Bytes of a row of `n_cols` weights; `None` if the row is not a whole number of blocks or the product overflows.
    pub fn row_bytes(self, n_cols: u64) -> Option<u64> {
        let elements = self.block_elements() as u64;
        if n_cols % elements != 0 {
            return None;
        }
        (n_cols / elements).checked_mul(self.block_bytes() as u64)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
