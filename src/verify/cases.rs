//! Which operations on which shapes: those of the named models, each once.

use crate::model::{CATALOG, ModelConfig};
use crate::ops::{HeadShape, MatrixShape};
use crate::quant::{FORMATS, Format};

use super::attention::{DECODE, Heads, LONG, PREFILL};
use super::product::Product;
use super::{Operation, VerifyOptions};

/// Rows of a pass: one, and more than one tile of any kernel, not a multiple of it.
const N_TOKENS: [usize; 2] = [1, 11];
/// A matrix that no tile divides.
const RAGGED: (usize, usize) = (61, 1024);

/// One operation on one shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Case {
    Product(Product),
    Heads(Heads),
}

impl Case {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Product(product) => product.operation,
            Self::Heads(heads) => heads.operation,
        }
    }
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Product(product) => product.shape.format,
            Self::Heads(heads) => heads.format,
        }
    }
    pub(super) fn n_tokens(&self) -> usize {
        match self {
            Self::Product(product) => product.n_tokens,
            Self::Heads(heads) => heads.n_tokens(),
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Product(Product { shape, operation, is_fused, .. }) => {
                let n_rows =
                    if *operation == Operation::NormGateUp { 2 * shape.n_rows } else { shape.n_rows };
                write!(f, "{n_rows} × {}{}", shape.n_cols, if *is_fused { " fused" } else { "" })
            }
            Self::Heads(Heads { heads, rope, has_norms, operation, .. }) => {
                write!(f, "{}/{} heads of {}", heads.q_heads, heads.kv_heads, heads.head_dim)?;
                if *operation == Operation::Attend {
                    return Ok(());
                }
                write!(f, ", {} turned", rope.rotated_dims)?;
                if *has_norms { f.write_str(", norms") } else { Ok(()) }
            }
        }
    }
}

/// Every case, each once.
pub(super) fn cases(options: &VerifyOptions) -> Vec<Case> {
    let wanted = |name: &str| options.models.is_empty() || options.models.iter().any(|model| model == name);
    let configs: Vec<_> = CATALOG.iter().filter(|row| wanted(row.name)).map(|row| row.config()).collect();
    let mut cases = Vec::new();
    for row in &FORMATS {
        if options.formats.is_empty() || options.formats.contains(&row.format) {
            products(&configs, row.format, options.rows, &mut cases);
        }
    }
    for config in &configs {
        for n_tokens in N_TOKENS {
            let shape = MatrixShape { format: Format::F32, n_rows: 1, n_cols: config.vocab_size };
            let (operation, is_fused) = (Operation::Choose, false);
            push(&mut cases, Case::Product(Product { operation, shape, is_fused, n_tokens }));
        }
    }
    for format in [Format::F16, Format::F32] {
        heads(&configs, format, options.rows.is_none(), &mut cases);
    }
    cases
}

fn push(cases: &mut Vec<Case>, case: Case) {
    if !cases.contains(&case) {
        cases.push(case);
    }
}

fn products(configs: &[ModelConfig], format: Format, rows: Option<usize>, cases: &mut Vec<Case>) {
    use Operation::{Embed, NormGateUp, NormProject, Project};
    let mut add = |operation, n_rows: usize, n_cols: usize, is_fused, n_tokens| {
        if n_cols.is_multiple_of(format.block_elements()) {
            let shape = MatrixShape { format, n_rows: n_rows.min(rows.unwrap_or(n_rows)), n_cols };
            push(cases, Case::Product(Product { operation, shape, is_fused, n_tokens }));
        }
    };
    let (ragged_rows, ragged_cols) = RAGGED;
    for n_tokens in N_TOKENS {
        for config in configs {
            let (hidden, ffn) = (config.hidden_dim, config.ffn_dim);
            add(Embed, config.vocab_size, hidden, false, n_tokens);
            add(NormProject, config.qkv_dim(), hidden, false, n_tokens);
            add(NormProject, config.vocab_size, hidden, false, n_tokens);
            add(Project, hidden, config.q_dim(), false, n_tokens);
            add(Project, hidden, ffn, false, n_tokens);
            add(NormGateUp, ffn, hidden, config.fused_gate_up, n_tokens);
        }
        add(Embed, ragged_rows, ragged_cols, false, n_tokens);
        add(NormProject, ragged_rows, ragged_cols, false, n_tokens);
        add(Project, ragged_rows, ragged_cols, false, n_tokens);
        add(NormGateUp, ragged_rows, ragged_cols, false, n_tokens);
    }
}

fn heads(configs: &[ModelConfig], format: Format, is_long: bool, cases: &mut Vec<Case>) {
    let passes: &[_] = if is_long { &[DECODE, PREFILL, LONG] } else { &[DECODE, PREFILL] };
    for config in configs {
        let heads = HeadShape {
            q_heads: config.num_q_heads,
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
        };
        for &sequences in passes {
            let (rope, has_norms) = (config.rope, config.qk_norm);
            for operation in [Operation::Rotate, Operation::Append] {
                // What stays in the rows does not depend on the cache.
                if operation == Operation::Append || format == Format::F32 {
                    push(cases, Case::Heads(Heads { operation, heads, rope, has_norms, format, sequences }));
                }
            }
            // Attention knows no rotation.
            let (operation, rope, has_norms) = (Operation::Attend, CATALOG[0].config().rope, false);
            push(cases, Case::Heads(Heads { operation, heads, rope, has_norms, format, sequences }));
        }
    }
}
