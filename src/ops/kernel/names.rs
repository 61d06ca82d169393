//! Which kernels a format has: one row each.

use crate::ops::{Layout, MatrixShape};
use crate::quant::Format;

/// Rows of a tile.
pub(super) const STRIP_ROWS: usize = 16;

/// The decode kernel for matrices of several formats, all in tiles.
pub(super) const DECODE_MIXED: &str = "matmul_decode_mixed";

/// The kernels of a format's tiles.
#[derive(Debug)]
pub(super) struct TileKernels {
    /// A tile's columns; they divide a matrix's.
    pub columns: usize,
    /// Of up to four tokens.
    pub decode: &'static str,
    /// How many of its blocks a multiprocessor runs side by side.
    pub decode_blocks: usize,
    /// Of five to eight tokens.
    pub decode_wide: &'static str,
    pub prefill: &'static str,
    /// Prefill with products of warpgroups, where the format's scales are integers.
    pub warpgroup: Option<&'static str>,
    pub embed: &'static str,
    pub repack: &'static str,
    /// The inverse of `repack`.
    #[cfg(all(test, feature = "emulator"))]
    pub unpack: &'static str,
}

/// The kernels of one format.
#[derive(Debug)]
pub(super) struct FormatKernels {
    /// Over the file's own order.
    pub matmul: &'static str,
    pub embed: &'static str,
    /// Over tiles, where the format has them.
    pub tiles: Option<TileKernels>,
}

macro_rules! kernels {
    (@warpgroup $name:literal) => { None };
    (@warpgroup $name:literal warpgroups) => { Some(concat!("matmul_warpgroup_", $name)) };
    (@tiles $name:literal) => { None };
    (@tiles $name:literal $columns:literal $blocks:literal $($warpgroups:ident)?) => {
        Some(TileKernels {
            columns: $columns,
            decode: concat!("matmul_decode_", $name),
            decode_blocks: $blocks,
            decode_wide: concat!("matmul_decode_wide_", $name),
            prefill: concat!("matmul_prefill_", $name),
            warpgroup: kernels!(@warpgroup $name $($warpgroups)?),
            embed: concat!("embed_tiles_", $name),
            repack: concat!("repack_", $name),
            #[cfg(all(test, feature = "emulator"))]
            unpack: concat!("unpack_", $name),
        })
    };
    ($($format:ident $name:literal $(tiles of $columns:literal columns, $blocks:literal blocks $($warpgroups:ident)?)?;)*) => {
        /// The kernels of a format.
        pub(super) fn kernels(format: Format) -> &'static FormatKernels {
            match format {
                $(Format::$format => {
                    const ROW: FormatKernels = FormatKernels {
                        matmul: concat!("matmul_blocks_", $name),
                        embed: concat!("embed_", $name),
                        tiles: kernels!(@tiles $name $($columns $blocks $($warpgroups)?)?),
                    };
                    &ROW
                })*
            }
        }
    };
}

kernels! {
    F32 "f32";
    F16 "f16";
    BF16 "bf16";
    Q4_0 "q4_0" tiles of 64 columns, 4 blocks;
    Q4_1 "q4_1";
    Q5_0 "q5_0" tiles of 64 columns, 4 blocks;
    Q5_1 "q5_1";
    Q8_0 "q8_0" tiles of 64 columns, 3 blocks;
    Q2_K "q2_k";
    Q3_K "q3_k";
    Q4_K "q4_k" tiles of 256 columns, 4 blocks warpgroups;
    Q5_K "q5_k" tiles of 256 columns, 4 blocks warpgroups;
    Q6_K "q6_k" tiles of 256 columns, 4 blocks warpgroups;
    Q8_K "q8_k";
    IQ4_NL "iq4_nl";
    IQ4_XS "iq4_xs";
}

/// How a matrix lies: in tiles where its format has them and its sides are whole tiles.
pub(super) fn layout(shape: MatrixShape) -> Layout {
    match &kernels(shape.format).tiles {
        Some(tiles)
            if shape.n_rows.is_multiple_of(STRIP_ROWS) && shape.n_cols.is_multiple_of(tiles.columns) =>
        {
            Layout::Tiles
        }
        _ => Layout::Blocks,
    }
}
