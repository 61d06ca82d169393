//! Worker threads, and results that several of them write side by side.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::ops::OpsError;

/// A pool of threads.
#[derive(Debug)]
pub(super) struct Workers {
    pool: rayon::ThreadPool,
    n_threads: usize,
}

impl Workers {
    pub(super) fn new(n_threads: usize) -> Result<Self, OpsError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .thread_name(|index| format!("worker-{index}"))
            .build()
            .map_err(|cause| OpsError::Threads { n_threads, cause: cause.to_string() })?;
        Ok(Self { pool, n_threads })
    }
    /// How many threads there are.
    pub(super) fn n_threads(&self) -> usize {
        self.n_threads
    }
    /// Runs `work` once on each thread, each with its own part of `scratch`.
    pub(super) fn each(&self, scratch: &mut [f32], work: impl Fn(&mut [f32]) + Sync) {
        let part = scratch.len() / self.n_threads;
        if self.n_threads == 1 {
            return work(scratch);
        }
        self.pool.scope(|scope| {
            let work = &work;
            for scratch in scratch.chunks_exact_mut(part.max(1)).take(self.n_threads) {
                scope.spawn(move |_| work(scratch));
            }
        });
    }
    /// Runs `work` on each of `items`, on whichever thread is free.
    pub(super) fn for_each<T: Send>(
        &self,
        items: impl Iterator<Item = T> + Send,
        work: impl Fn(T) + Sync + Send,
    ) {
        use rayon::iter::{ParallelBridge, ParallelIterator};
        if self.n_threads == 1 || items.size_hint().1.is_some_and(|most| most <= 1) {
            return items.for_each(work);
        }
        self.pool.install(|| items.par_bridge().for_each(work));
    }
}

/// Rows of a matrix that threads take until none is left.
#[derive(Debug)]
pub(super) struct Queue {
    next: AtomicUsize,
    n_rows: usize,
    n_threads: usize,
}

impl Queue {
    pub(super) fn new(n_rows: usize, n_threads: usize) -> Self {
        Self { next: AtomicUsize::new(0), n_rows, n_threads }
    }
    /// Takes this many rows, or what is left.
    pub(super) fn take(&self, n: usize) -> Option<Range<usize>> {
        self.take_of(|_| n)
    }
    /// Takes half of an equal share of what is left, in whole groups of this many rows: much at first, so that memory is
    /// read in order, and little at the end, so that no thread waits long for another.
    pub(super) fn take_share(&self, group: usize) -> Option<Range<usize>> {
        self.take_of(|left| (left / (2 * self.n_threads)).max(1).next_multiple_of(group))
    }
    fn take_of(&self, n: impl Fn(usize) -> usize) -> Option<Range<usize>> {
        let end = |first: usize| self.n_rows.min(first + n(self.n_rows - first));
        let further = |first: usize| (first < self.n_rows).then(|| end(first));
        let first = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, further).ok()?;
        Some(first..end(first))
    }
}

/// Rows of results that several threads write, each its own columns.
#[derive(Clone, Copy)]
pub(super) struct SharedColumns<'a> {
    /// The bits of the f32; a relaxed store of them is a plain store.
    cells: &'a [AtomicU32],
    stride: usize,
    offset: usize,
}

impl<'a> SharedColumns<'a> {
    /// Rows that lie `stride` apart.
    pub(super) fn new(rows: &'a mut [f32], stride: usize) -> Self {
        // SAFETY: `AtomicU32` has the size and alignment of f32, all bits of both are valid, and the exclusive
        // borrow is given up for 'a, so all access in that time is atomic.
        let cells = unsafe { &*(std::ptr::from_mut(rows) as *const [AtomicU32]) };
        Self { cells, stride, offset: 0 }
    }
    /// The columns from `offset` on.
    pub(super) fn from(self, offset: usize) -> Self {
        Self { offset, ..self }
    }
    #[inline(always)]
    fn cell(&self, row: usize, column: usize) -> &'a AtomicU32 {
        &self.cells[row * self.stride + self.offset + column]
    }
    #[inline(always)]
    pub(super) fn set(&self, row: usize, column: usize, value: f32) {
        self.cell(row, column).store(value.to_bits(), Ordering::Relaxed);
    }
    #[inline(always)]
    pub(super) fn add(&self, row: usize, column: usize, value: f32) {
        let cell = self.cell(row, column);
        let sum = f32::from_bits(cell.load(Ordering::Relaxed)) + value;
        cell.store(sum.to_bits(), Ordering::Relaxed);
    }
}
