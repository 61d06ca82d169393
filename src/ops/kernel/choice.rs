//! Launching choices, and what they need of the workspace.

use crate::device::{DeviceError, Grid, Launch};
use crate::ops::{Choice, Pass, Rows};

use super::params::{ChoiceRow, ChooseParams};
use super::workspace::{DECODE_ROWS, Workspace};

/// Threads of the kernels of this file.
const THREADS: u32 = 256;
/// Rows that go through the kernels together: their histograms stand side by side.
const ROWS: usize = DECODE_ROWS;
/// As `params.cuh` has them.
const ROUNDS: usize = 5;
const BUCKETS: usize = 2048;
const SLICE: usize = 2048;
/// Most slices of a row: a block adds them up.
const MOST_SLICES: usize = 2048;
/// Words of 64 bits of a row: masses and counts, bounds.
const ROW_WORDS: usize = ROUNDS * BUCKETS * 3 / 2 + (ROUNDS + 1) * 3;
/// Words of 64 bits of a slice.
const SLICE_WORDS: usize = 2;

/// The largest vocabulary that the kernels take.
pub(super) const MOST_LOGITS: usize = MOST_SLICES * SLICE;

/// Words of 32 bits that a pass's tables have for a choice: its result, its row.
pub(super) const TABLE_WORDS: usize = (size_of::<u64>() + size_of::<ChoiceRow>()) / 4;

/// Bytes of histograms, bounds and slices for passes of so many rows.
pub(super) fn scratch_bytes(n_rows: usize, n_logits: usize) -> usize {
    let words = ROW_WORDS.saturating_add(SLICE_WORDS.saturating_mul(n_logits.div_ceil(SLICE)));
    8_usize.saturating_mul(n_rows.min(ROWS)).saturating_mul(words)
}

/// What the kernels read of a choice; its recent tokens stand at word `recent` of the tables.
pub(super) fn row(choice: &Choice, recent: usize) -> ChoiceRow {
    let draws = !choice.is_greedy();
    ChoiceRow {
        random: choice.random_fraction(),
        top_p: choice.top_p_fraction().filter(|_| draws).unwrap_or(0),
        min_weight: choice.min_weight(),
        top_k: if draws { choice.top_k } else { 0 },
        temperature: if draws { choice.temperature } else { 0.0 },
        repeat: choice.penalties.repeat,
        frequency: choice.penalties.frequency,
        presence: choice.penalties.presence,
        recent: recent as u32,
        n_recent: choice.recent.counts().len() as u32,
        unused: 0,
    }
}

/// Which kernels a pass's choices need together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Filters {
    draws: bool,
    top_k: bool,
    top_p: bool,
}

impl Filters {
    /// Of choices; `None` where there are none.
    pub(super) fn of(choices: &[Choice]) -> Option<Self> {
        let any = |has: fn(&Choice) -> bool| choices.iter().any(|choice| !choice.is_greedy() && has(choice));
        (!choices.is_empty()).then(|| Self {
            draws: any(|_| true),
            top_k: any(|choice| choice.top_k > 0),
            top_p: any(|choice| choice.top_p_fraction().is_some()),
        })
    }
    /// The rounds in which the bound is narrowed.
    fn rounds(self) -> impl Iterator<Item = u32> {
        let rank = self.top_k || self.top_p;
        let rounds = [(0, rank), (1, self.top_k), (2, self.top_k), (3, self.top_p), (4, self.top_p)];
        rounds.into_iter().filter(|(_, is_needed)| *is_needed).map(|(round, _)| round)
    }
}

/// Makes a pass's choices from their rows of logits.
pub(super) fn choose<D: Launch>(
    device: &D,
    pass: &Pass<'_>,
    logits: &mut Rows<D>,
    workspace: &Workspace<D>,
) -> Result<(), DeviceError> {
    let Some(filters) = Filters::of(pass.choices) else { return Ok(()) };
    let n_slices = logits.width.div_ceil(SLICE);
    for first in (0..pass.choices.len()).step_by(ROWS) {
        let n_rows = ROWS.min(pass.choices.len() - first);
        let tables = workspace.choices(first);
        let masses = workspace.choice_scratch();
        let counts = masses + 8 * (n_rows * ROUNDS * BUCKETS) as u64;
        let bounds = counts + 4 * (n_rows * ROUNDS * BUCKETS) as u64;
        let params = ChooseParams {
            logits: logits.values.address() + 4 * (first * logits.stride()) as u64,
            best: tables.best,
            choices: tables.rows,
            recent: tables.recent,
            masses,
            counts,
            bounds,
            slices: bounds + 8 * (n_rows * (ROUNDS + 1) * 3) as u64,
            n_columns: logits.width as u32,
            stride: logits.stride() as u32,
            n_slices: n_slices as u32,
            round: 0,
        };
        let launch = |kernel, slices: usize, round| {
            let blocks = [slices as u32, n_rows as u32, 1];
            let grid = Grid { blocks, threads: THREADS, shared_bytes: 0 };
            device.launch(kernel, grid, &ChooseParams { round, ..params })
        };
        launch("choose_largest", n_slices, 0)?;
        if filters.draws {
            filters.rounds().try_for_each(|round| launch("choose_narrow", n_slices, round))?;
            launch("choose_weigh", n_slices, 0)?;
            launch("choose_pick", 1, 0)?;
        }
    }
    Ok(())
}

/// The token that a result of the kernels names.
pub(super) fn token(best: u64) -> Option<u32> {
    (best != 0).then_some(!(best as u32))
}
