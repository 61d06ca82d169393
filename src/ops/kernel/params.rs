//! The kernels' parameter structs, as `kernels/include/params.cuh` has them: addresses, then 32-bit numbers.

use bytemuck::{Pod, Zeroable};

/// An address on the device; 0 for none.
pub(crate) type Address = u64;

/// Defines `repr(C)` structs and a table of their layouts, against which the emulator's side is tested.
macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
            #[repr(C)]
            pub(crate) struct $name { $(pub $field: $type),* }
        )*
        /// Name, size, and the offset of each field of every struct.
        #[cfg(all(test, feature = "emulator"))]
        const LAYOUTS: &[(&str, usize, &[(&str, usize)])] = &[
            $((stringify!($name), size_of::<$name>(), &[$((stringify!($field), std::mem::offset_of!($name, $field))),*])),*
        ];
    };
}

params! {
    /// What a pass works on.
    PassTables {
        tokens: Address, positions: Address, page_lists: Address, pages: Address, rotary_set: Address,
        angles: Address,
    }
    /// `angles`.
    AnglesParams {
        tables: PassTables, frequencies: [Address; 2], n_rows: u32, rotated_dims: u32, attention_factor: f32,
        unused: u32,
    }
    /// `embed_*`.
    EmbedParams { tables: PassTables, table: Address, x: Address, n_rows: u32, n_columns: u32, stride: u32, unused: u32 }
    /// Rows of 16-bit fixed point.
    Planes { codes: Address, scales: Address, sums: Address, squares: Address }
    /// `quantize`.
    QuantizeParams {
        x: Address, norm: Address, planes: Planes, first_row: u32, n_rows: u32, n_columns: u32, stride: u32,
    }
    /// `matmul_prefill_*`, `matmul_blocks_*`.
    MatmulParams {
        weights: [Address; 2], planes: Planes, bias: Address, out: Address, n_rows: u32, n_columns: u32,
        n_tokens: u32, stride: u32, epilogue: u32, eps: f32,
    }
    /// A matrix in tiles, and where its outputs stand.
    MatmulPart { weights: Address, bias: Address, first_row: u32, end_row: u32, format: u32, unused: u32 }
    /// `matmul_decode_*`.
    MatmulDecodeParams {
        parts: [MatmulPart; 3], planes: Planes, next: Planes, next_norm: Address, arrivals: Address, out: Address,
        n_rows: u32, n_columns: u32, n_tokens: u32, stride: u32, epilogue: u32, eps: f32,
    }
    /// `repack_*`, `unpack_*`.
    RepackParams { from: Address, into: Address, n_rows: u32, n_columns: u32 }
    /// One layer of the cache.
    CacheView { keys: Address, values: Address }
    /// How many heads of what size.
    HeadCounts { q_heads: u32, kv_heads: u32, head_dim: u32, rotated_dims: u32 }
    /// `rotate_*`.
    RotateParams {
        tables: PassTables, qkv: Address, q_norm: Address, k_norm: Address, cache: CacheView, heads: HeadCounts,
        n_rows: u32, stride: u32, interleaved: u32, q_eps: f32, k_eps: f32, unused: u32,
    }
    /// `attend_*`.
    AttendParams {
        tables: PassTables, qkv: Address, cache: CacheView, out: Address, partials: Address, next: Planes,
        arrivals: Address, tiles: Address, heads: HeadCounts, n_rows: u32, n_tiles: u32, n_splits: u32, stride: u32, out_stride: u32, scale: f32,
    }
    /// `read`.
    ReadParams { from: Address, into: Address, n_vectors: u64 }
    /// How a token is chosen from a row.
    ChoiceRow {
        random: u64, top_p: u64, min_weight: u64, top_k: u32, temperature: f32, repeat: f32, frequency: f32,
        presence: f32, recent: u32, n_recent: u32, unused: u32,
    }
    /// `choose_*`.
    ChooseParams {
        logits: Address, best: Address, choices: Address, recent: Address, masses: Address, counts: Address,
        bounds: Address, slices: Address, n_columns: u32, stride: u32, n_slices: u32, round: u32,
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    #[test]
    fn the_kernels_see_the_same_structs() {
        let theirs = crate::device::layouts();
        let ours: Vec<_> =
            super::LAYOUTS.iter().map(|&(name, size, fields)| (name, size, fields.to_vec())).collect();
        for expected in &theirs {
            let found = ours.iter().find(|ours| ours.0 == expected.0);
            assert_eq!(found, Some(expected));
        }
        assert_eq!(ours.len(), theirs.len(), "a struct that kernels do not have");
    }
}
