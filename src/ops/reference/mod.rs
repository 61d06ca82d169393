//! The operations in plain Rust on the host: the oracle for every other device, and what runs where there is no GPU.
//!
//! All arithmetic is f32, in sixteen lanes with one order of summation (see `simd` and `matmul`), so results do not
//! depend on the number of threads nor on how rows are grouped into passes. Products may be made of integers instead, by
//! choice ([`Arithmetic::FixedPoint`], in `fixed`).

mod ahead;
mod attention;
mod choose;
mod codes;
mod fixed;
mod matmul;
mod pointwise;
mod rotary;
mod simd;
mod threads;
mod unpack;

use std::ops::Range;

use half::f16;

use crate::device::{Buffer, Device, DeviceError, HostDevice, Region};
use crate::model::ModelConfig;
use crate::quant::{Format, with_block};

use super::{
    Arithmetic, CacheLayer, HeadNorms, HeadShape, Layout, Matrix, MatrixShape, Norm, Ops, OpsError,
    PAGE_TOKENS, Pass, PassLimits, Projection, ProjectionPart, RotaryTable, Rows, Span, expect, expect_room,
    padded_width,
};

use attention::{Attend, CacheElement};
pub use choose::choose;
#[cfg(all(test, feature = "emulator"))]
pub(crate) use choose::exponential;
use matmul::{Product, Target};
use pointwise::{RmsNorm, SwiGlu};
use rotary::Turn;
pub use simd::InstructionSet;
use threads::{Queue, SharedColumns, Workers};

/// Rows that one thread attends with before it takes more.
const ATTENTION_ROWS: usize = 16;

/// Where the results of a product go.
struct Output<'a> {
    rows: &'a mut [f32],
    /// Floats from one row to the next.
    stride: usize,
    /// Whether results are added to what is there.
    accumulate: bool,
}

/// The reference operations on a pool of threads.
#[derive(Debug)]
pub struct ReferenceOps {
    device: HostDevice,
    workers: Workers,
    set: InstructionSet,
    arithmetic: Arithmetic,
}

impl ReferenceOps {
    /// Operations on `n_threads` threads with the best instruction set of this machine.
    pub fn new(n_threads: usize) -> Result<Self, OpsError> {
        Self::with_instruction_set(n_threads, InstructionSet::available()[0])
    }
    /// The same with an instruction set of the caller's choice; one that is not there falls back to the portable one.
    pub fn with_instruction_set(n_threads: usize, set: InstructionSet) -> Result<Self, OpsError> {
        let workers = Workers::new(n_threads.max(1))?;
        Ok(Self { device: HostDevice, workers, set, arithmetic: Arithmetic::Single })
    }
    /// The same operations with products in another arithmetic. Fixed point is there for Q4_0, Q5_0, Q8_0, Q4_K, Q5_K and
    /// Q6_K; matrices of other formats are multiplied in singles all the same.
    #[must_use]
    pub fn with_arithmetic(self, arithmetic: Arithmetic) -> Self {
        Self { arithmetic, ..self }
    }
    /// Bytes of private scratch memory that passes within `limits` need on `n_threads` threads.
    pub fn workspace_bytes_on(
        n_threads: usize,
        arithmetic: Arithmetic,
        config: &ModelConfig,
        limits: PassLimits,
    ) -> u64 {
        let rows = padded_width(config.hidden_dim) + padded_width(2 * config.ffn_dim);
        let threads = n_threads.saturating_mul(thread_floats(config, limits));
        let fixed = match arithmetic {
            Arithmetic::Single => 0,
            Arithmetic::FixedPoint => fixed::floats(limits.rows, widest(config)),
        };
        let floats = limits.rows.saturating_mul(rows).saturating_add(threads).saturating_add(fixed);
        4_u64.saturating_mul(floats as u64)
    }
    /// How many threads work.
    pub fn n_threads(&self) -> usize {
        self.workers.n_threads()
    }
    /// The instruction set in use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// `out[t][offset..] = projection · x[t] (+ bias)`, or added to it. x is `[n, stride]`; `fixed` has room for it in
    /// fixed point, where that is the arithmetic.
    fn product(
        &self,
        x: &[f32],
        n_tokens: usize,
        projection: &Projection<HostDevice>,
        (scratch, fixed): (&mut [f32], &mut [f32]),
        out: Output<'_>,
    ) {
        let (workers, set) = (&self.workers, self.set);
        let is_fixed = |format: Format| {
            self.arithmetic == Arithmetic::FixedPoint && fixed::takes(format) && n_tokens > 0
        };
        let activations = (projection.parts.iter().any(|part| is_fixed(part.matrix.shape.format)))
            .then(|| fixed::Activations::new(workers, set, (x, n_tokens, projection.n_cols()), fixed));
        let columns = SharedColumns::new(out.rows, out.stride);
        let queue =
            |part: &ProjectionPart<HostDevice>| Queue::new(part.matrix.shape.n_rows, workers.n_threads());
        let queues: Vec<Queue> = projection.parts.iter().map(queue).collect();
        // One hand-over for all parts: who has no row of one left takes rows of the next.
        workers.each(scratch, |scratch| {
            let mut first = 0;
            for (part, rows) in projection.parts.iter().zip(&queues) {
                let (shape, blocks) = (part.matrix.shape, part.matrix.blocks.as_slice());
                let MatrixShape { format, n_rows, n_cols } = shape;
                let bias = part.bias.as_ref().map(Buffer::as_slice);
                let target = Target { out: columns.from(first), bias, accumulate: out.accumulate };
                match activations {
                    Some(x) if is_fixed(format) => {
                        fixed::work(set, fixed::Product { x, shape, blocks }, rows, scratch, target);
                    }
                    _ => {
                        let product = Product { x, n_tokens, n_cols, blocks };
                        with_block!(format, B => matmul::work::<B>(set, product, rows, scratch, target));
                    }
                }
                first += n_rows;
            }
        });
    }

    /// `out[i] = rms_norm(x[first + i])`, both padded.
    fn normalize(&self, x: &Rows<HostDevice>, rows: Range<usize>, norm: &Norm<HostDevice>, out: &mut [f32]) {
        let (stride, width) = (x.stride(), x.width);
        let x = &x.values.as_slice()[rows.start * stride..rows.end * stride];
        let (weight, eps) = (norm.weight.as_slice(), norm.eps);
        let rows = x.chunks_exact(stride).zip(out.chunks_exact_mut(stride));
        self.workers.for_each(rows, |(x, out)| {
            self.set.run(RmsNorm { x: &x[..width], weight, eps, out });
        });
    }

    fn attend_in<E: CacheElement>(
        &self,
        qkv: &Rows<HostDevice>,
        heads: HeadShape,
        spans: &[Span<'_>],
        cache: &CacheLayer<HostDevice>,
        scratch: &mut [f32],
        out: SharedColumns<'_>,
    ) {
        let keys: &[E] = bytemuck::cast_slice(cache.keys.as_slice());
        let values: &[E] = bytemuck::cast_slice(cache.values.as_slice());
        let tasks: Vec<(Span<'_>, usize, Range<usize>)> = spans
            .iter()
            .flat_map(|&span| {
                let rows = (0..span.n_rows).step_by(ATTENTION_ROWS);
                // The longest rows first, so that no thread is left with them at the end.
                rows.rev().flat_map(move |row| {
                    let rows = row..span.n_rows.min(row + ATTENTION_ROWS);
                    (0..heads.kv_heads).map(move |kv_head| (span, kv_head, rows.clone()))
                })
            })
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        self.workers.each(scratch, |scores| {
            while let Some((span, kv_head, rows)) =
                tasks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                self.set.run(Attend {
                    heads,
                    kv_head: *kv_head,
                    span: *span,
                    rows: rows.clone(),
                    qkv: qkv.values.as_slice(),
                    stride: qkv.stride(),
                    keys,
                    values,
                    scores,
                    out,
                });
            }
        });
    }
}

/// f32 of scratch for one thread: a panel of the widest product, or the scores of the longest context. A context beyond
/// all memory saturates here and is refused by the plan.
fn thread_floats(config: &ModelConfig, limits: PassLimits) -> usize {
    let scores = limits.context.checked_next_multiple_of(PAGE_TOKENS).unwrap_or(usize::MAX);
    matmul::scratch_floats(widest(config)).max(scores)
}

/// Columns of the widest product.
fn widest(config: &ModelConfig) -> usize {
    config.hidden_dim.max(config.q_dim()).max(config.ffn_dim)
}

/// Scratch memory, and what the last pass chose.
#[derive(Debug)]
pub struct Workspace {
    floats: Buffer<HostDevice, f32>,
    chosen: Vec<Option<u32>>,
}

/// What scratch memory is divided into.
struct Parts<'a> {
    /// The input of a product in fixed point, where that is the arithmetic.
    fixed: &'a mut [f32],
    /// One part for each thread.
    threads: &'a mut [f32],
    /// Normalised rows.
    normed: &'a mut [f32],
    /// Gate and up.
    gate_up: &'a mut [f32],
}

impl ReferenceOps {
    fn parts<'a>(
        &self,
        workspace: &'a mut Workspace,
        (n_rows, n_cols): (usize, usize),
        normed: usize,
        gate_up: usize,
    ) -> Result<Parts<'a>, OpsError> {
        let all = workspace.floats.as_mut_slice();
        let fixed = match self.arithmetic {
            Arithmetic::Single => 0,
            Arithmetic::FixedPoint => fixed::floats(n_rows, n_cols),
        };
        let wanted = fixed + normed + gate_up + self.workers.n_threads();
        if all.len() < wanted {
            return Err(OpsError::Shape {
                operation: "workspace",
                operand: "length",
                found: all.len(),
                expected: wanted,
            });
        }
        // First what is read in vectors: the workspace begins at a multiple of their size.
        let (fixed, rest) = all.split_at_mut(fixed);
        let (normed, rest) = rest.split_at_mut(normed);
        let (gate_up, threads) = rest.split_at_mut(gate_up);
        Ok(Parts { fixed, threads, normed, gate_up })
    }
}

impl Ops for ReferenceOps {
    type Device = HostDevice;
    type Workspace = Workspace;

    fn device(&self) -> &HostDevice {
        &self.device
    }

    fn workspace_bytes(&self, config: &ModelConfig, limits: PassLimits) -> u64 {
        Self::workspace_bytes_on(self.workers.n_threads(), self.arithmetic, config, limits)
    }

    fn staging_bytes(&self) -> u64 {
        0
    }

    fn workspace(
        &self,
        _: &ModelConfig,
        _: PassLimits,
        region: Region<HostDevice>,
    ) -> Result<Self::Workspace, OpsError> {
        Ok(Workspace { floats: region.typed(), chosen: Vec::new() })
    }

    fn load_matrix<E: From<OpsError> + From<DeviceError>>(
        &self,
        shape: MatrixShape,
        mut into: Region<HostDevice>,
        _: &mut Region<HostDevice>,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Matrix<HostDevice>, E> {
        self.device.fill(&mut into, read)?;
        Ok(Matrix { shape, layout: Layout::Blocks, blocks: into.typed() })
    }

    fn run<E: From<OpsError> + From<DeviceError>>(
        &self,
        _: &Pass<'_>,
        _: &RotaryTable<HostDevice>,
        workspace: &mut Workspace,
        mut operations: impl FnMut(&mut Self::Workspace) -> Result<(), E>,
    ) -> Result<(), E> {
        operations(workspace)
    }

    fn read_all(&self, region: &Region<HostDevice>, _: &mut Self::Workspace) -> Result<(), OpsError> {
        let bytes = region.as_slice();
        let piece = bytes.len().div_ceil(self.workers.n_threads()).next_multiple_of(64).max(64);
        self.workers.for_each(bytes.chunks(piece), |bytes| {
            let words = bytes.as_chunks::<8>().0;
            let mixed = words.iter().fold(0, |mixed, word| mixed ^ u64::from_le_bytes(*word));
            std::hint::black_box(mixed);
        });
        Ok(())
    }

    fn choose(
        &self,
        pass: &Pass<'_>,
        logits: &mut Rows<HostDevice>,
        workspace: &mut Workspace,
    ) -> Result<(), OpsError> {
        expect("choose", "choices", pass.choices.len(), pass.n_logits)?;
        expect_room("choose", logits, pass.n_logits)?;
        let (stride, width) = (logits.stride(), logits.width);
        let rows = logits.values.as_mut_slice().chunks_exact_mut(stride).zip(pass.choices);
        workspace.chosen = rows.map(|(row, how)| choose(&mut row[..width], how)).collect();
        Ok(())
    }

    fn chosen(&self, n: usize, workspace: &Workspace) -> Result<Vec<Option<u32>>, OpsError> {
        expect("chosen", "choices", n, workspace.chosen.len())?;
        Ok(workspace.chosen.clone())
    }

    fn embed(
        &self,
        pass: &Pass<'_>,
        table: &Matrix<HostDevice>,
        _: &mut Self::Workspace,
        x: &mut Rows<HostDevice>,
    ) -> Result<(), OpsError> {
        let (tokens, MatrixShape { format, n_rows, n_cols }) = (pass.tokens, table.shape);
        expect("embed", "hidden size", x.width, n_cols)?;
        expect_room("embed", x, tokens.len())?;
        let blocks = table.blocks.as_slice();
        let row_bytes = blocks.len() / n_rows.max(1);
        let (stride, width) = (x.stride(), x.width);
        for (&token, x) in tokens.iter().zip(x.values.as_mut_slice().chunks_exact_mut(stride)) {
            if token as usize >= n_rows {
                return Err(OpsError::UnknownToken { token, vocabulary: n_rows });
            }
            let row = &blocks[token as usize * row_bytes..][..row_bytes];
            (format.row().dequantize)(row, &mut x[..width]);
        }
        Ok(())
    }

    fn norm_project(
        &self,
        x: &Rows<HostDevice>,
        rows: Range<usize>,
        norm: &Norm<HostDevice>,
        projection: &Projection<HostDevice>,
        workspace: &mut Workspace,
        out: &mut Rows<HostDevice>,
    ) -> Result<(), OpsError> {
        expect("norm_project", "inputs", x.width, projection.n_cols())?;
        expect("norm_project", "outputs", out.width, projection.n_rows())?;
        expect_room("norm_project", x, rows.end)?;
        expect_room("norm_project", out, rows.len())?;
        let n_rows = rows.len();
        let Parts { fixed, threads, normed, .. } =
            self.parts(workspace, (n_rows, x.width), n_rows * x.stride(), 0)?;
        self.normalize(x, rows, norm, normed);
        let stride = out.stride();
        let out = Output { rows: out.values.as_mut_slice(), stride, accumulate: false };
        self.product(normed, n_rows, projection, (threads, fixed), out);
        Ok(())
    }

    fn rotate_and_append(
        &self,
        pass: &Pass<'_>,
        qkv: &mut Rows<HostDevice>,
        heads: HeadShape,
        qk_norm: Option<HeadNorms<'_, HostDevice>>,
        rotary: &RotaryTable<HostDevice>,
        _: &mut Self::Workspace,
        cache: &mut CacheLayer<HostDevice>,
    ) -> Result<(), OpsError> {
        expect("rotate_and_append", "width", qkv.width, heads.q_dim() + 2 * heads.kv_dim())?;
        let (stride, width) = (qkv.stride(), qkv.width);
        let turn = Turn { set: self.set, heads, qk_norm, rotary };
        for span in pass.spans {
            expect_room("rotate_and_append", qkv, span.first_row + span.n_rows)?;
            let rows = qkv.values.as_mut_slice()[span.first_row * stride..].chunks_exact_mut(stride);
            self.workers.for_each(rows.take(span.n_rows).enumerate(), |(i, row)| {
                turn.row(&mut row[..width], span.position + i, span.rotary_set);
            });
            rotary::append(qkv.values.as_slice(), stride, heads, span, cache);
        }
        Ok(())
    }

    fn attend(
        &self,
        pass: &Pass<'_>,
        qkv: &Rows<HostDevice>,
        heads: HeadShape,
        cache: &CacheLayer<HostDevice>,
        workspace: &mut Workspace,
        out: &mut Rows<HostDevice>,
    ) -> Result<(), OpsError> {
        expect("attend", "outputs", out.width, heads.q_dim())?;
        let spans = pass.spans;
        for span in spans {
            expect_room("attend", out, span.first_row + span.n_rows)?;
        }
        let Parts { threads, .. } = self.parts(workspace, (0, 0), 0, 0)?;
        let stride = out.stride();
        let out = SharedColumns::new(out.values.as_mut_slice(), stride);
        match cache.format {
            Format::F16 => self.attend_in::<f16>(qkv, heads, spans, cache, threads, out),
            _ => self.attend_in::<f32>(qkv, heads, spans, cache, threads, out),
        }
        Ok(())
    }

    fn project(
        &self,
        a: &Rows<HostDevice>,
        n_rows: usize,
        projection: &Projection<HostDevice>,
        _next_norm: Option<&Norm<HostDevice>>,
        workspace: &mut Workspace,
        x: &mut Rows<HostDevice>,
    ) -> Result<(), OpsError> {
        expect("project", "inputs", a.width, projection.n_cols())?;
        expect("project", "outputs", x.width, projection.n_rows())?;
        expect_room("project", a, n_rows)?;
        expect_room("project", x, n_rows)?;
        let Parts { fixed, threads, .. } = self.parts(workspace, (n_rows, a.width), 0, 0)?;
        let input = &a.values.as_slice()[..n_rows * a.stride()];
        let stride = x.stride();
        let out = Output { rows: x.values.as_mut_slice(), stride, accumulate: true };
        self.product(input, n_rows, projection, (threads, fixed), out);
        Ok(())
    }

    fn norm_gate_up(
        &self,
        x: &Rows<HostDevice>,
        n_rows: usize,
        norm: &Norm<HostDevice>,
        gate_up: &Projection<HostDevice>,
        workspace: &mut Workspace,
        h: &mut Rows<HostDevice>,
    ) -> Result<(), OpsError> {
        let (width, stride) = (h.width, padded_width(2 * h.width));
        expect("norm_gate_up", "inputs", x.width, gate_up.n_cols())?;
        expect("norm_gate_up", "outputs", 2 * width, gate_up.n_rows())?;
        expect_room("norm_gate_up", x, n_rows)?;
        expect_room("norm_gate_up", h, n_rows)?;
        let Parts { fixed, threads, normed, gate_up: both } =
            self.parts(workspace, (n_rows, x.width), n_rows * x.stride(), n_rows * stride)?;
        self.normalize(x, 0..n_rows, norm, normed);
        let out = Output { rows: both, stride, accumulate: false };
        self.product(normed, n_rows, gate_up, (threads, fixed), out);
        let h_stride = h.stride();
        let rows = both.chunks_exact(stride).zip(h.values.as_mut_slice().chunks_exact_mut(h_stride));
        self.workers.for_each(rows, |(both, out)| {
            let (gate, up) = both[..2 * width].split_at(width);
            self.set.run(SwiGlu { gate, up, out });
        });
        Ok(())
    }
}
