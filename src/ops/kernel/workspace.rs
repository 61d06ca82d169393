//! Private scratch memory of the kernels: what a pass works on, activations in planes, partial sums of attention.

use crate::device::{Buffer, Device, DeviceError, REGION_ALIGNMENT, Region};
use crate::model::ModelConfig;
use crate::ops::{HeadShape, OpsError, PAGE_TOKENS, Pass, PassLimits};

use super::choice;
use super::params::{Address, ChoiceRow, PassTables, Planes};

/// Columns under one scale of the planes.
const BLOCK_COLUMNS: usize = 256;
/// Columns that a lane's sixteen bytes of codes belong to.
const UNIT_COLUMNS: usize = 64;
/// Rows whose codes stand together.
pub(super) const TILE_TOKENS: usize = 4;
/// Most rows that go through the decode kernels together.
pub(super) const DECODE_ROWS: usize = 8;
/// Pages in a split of the cache.
pub(super) const SPLIT_PAGES: usize = 8;
/// Positions in a split of the cache.
const SPLIT_TOKENS: usize = SPLIT_PAGES * PAGE_TOKENS;
/// Rows of one sequence that attention's prefill kernel takes together.
pub(super) const ATTEND_TILE_ROWS: usize = 64;

/// Lengths of the parts, in bytes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    tables: usize,
    angles: usize,
    /// Of all rows, and of those that the decode kernels take.
    planes: [PlaneSizes; 2],
    partials: usize,
    choice: usize,
    arrivals: usize,
}

/// Lengths of the parts of planes, in bytes.
#[derive(Debug, Clone, Copy)]
struct PlaneSizes {
    codes: usize,
    scales: usize,
    sums: usize,
    squares: usize,
}

impl PlaneSizes {
    fn new(rows: usize, width: usize) -> Self {
        let rows = rows.saturating_add(TILE_TOKENS - 1) / TILE_TOKENS * TILE_TOKENS;
        let (units, blocks) = (width.div_ceil(UNIT_COLUMNS), width.div_ceil(BLOCK_COLUMNS));
        let of_row = |bytes: usize| rows.saturating_mul(bytes);
        Self {
            codes: of_row(2 * UNIT_COLUMNS * units),
            scales: of_row(4 * blocks),
            sums: of_row(24 * blocks),
            squares: of_row(4 * blocks),
        }
    }
    fn all(self) -> [usize; 4] {
        [self.codes, self.scales, self.sums, self.squares]
    }
}

/// Columns of the tables with a number for each row.
const ROW_COLUMNS: usize = 6;

/// Where the choices of a pass begin in its tables: at a multiple of 16 bytes.
fn choices_at(n_rows: usize) -> usize {
    n_rows.saturating_mul(ROW_COLUMNS).saturating_add(3) / 4 * 4
}

/// Words of the tables of the largest pass. Recent tokens are tokens of sequences, which share the context's pages.
fn table_words(limits: PassLimits) -> usize {
    let pages = limits.context.div_ceil(PAGE_TOKENS);
    let recent = pages.saturating_mul(2 * PAGE_TOKENS);
    let choices = limits.rows.saturating_mul(choice::TABLE_WORDS);
    [choices_at(limits.rows), choices, pages, recent].into_iter().fold(0, usize::saturating_add)
}

impl Sizes {
    /// Saturates: a context beyond all memory is refused by the plan.
    fn new(config: &ModelConfig, limits: PassLimits) -> Self {
        let widest = config.hidden_dim.max(config.q_dim()).max(config.ffn_dim);
        let decode_rows = limits.rows.min(DECODE_ROWS);
        let splits = limits.context.div_ceil(SPLIT_TOKENS).saturating_mul(config.num_q_heads);
        let of = |count: usize, bytes: usize| count.saturating_mul(bytes);
        Self {
            tables: of(table_words(limits), 4),
            angles: of(limits.rows, 4 * config.rope.rotated_dims),
            planes: [limits.rows, decode_rows].map(|rows| PlaneSizes::new(rows, widest)),
            partials: of(of(decode_rows, splits), 4 * (config.head_dim + 2)),
            choice: choice::scratch_bytes(limits.rows, config.vocab_size),
            arrivals: of(decode_rows, 4 * widest.div_ceil(BLOCK_COLUMNS)),
        }
    }
    fn all(self) -> impl Iterator<Item = usize> {
        let [first, second] = self.planes.map(PlaneSizes::all);
        let others = [self.tables, self.angles, self.partials, self.choice, self.arrivals];
        others.into_iter().chain(first).chain(second)
    }
}

/// Addresses of a pass's choices.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChoiceTables {
    pub best: Address,
    pub rows: Address,
    pub recent: Address,
}

/// Bytes of a workspace for passes within `limits`.
pub(super) fn bytes(config: &ModelConfig, limits: PassLimits) -> u64 {
    Sizes::new(config, limits).all().fold(0_u64, |sum, size| {
        sum.saturating_add((size as u64).checked_next_multiple_of(REGION_ALIGNMENT).unwrap_or(u64::MAX))
    })
}

/// Rows that stand in planes, as the operation that wrote them left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prepared {
    /// Address of the first row.
    pub rows: Address,
    pub n_rows: usize,
    /// Address of the weights of the norm; 0 for none.
    pub norm: Address,
}

/// Which planes are in use, and what stands in them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PlanesInUse {
    index: usize,
    prepared: Option<Prepared>,
}

/// Room for rows in planes.
#[derive(Debug)]
struct PlaneBuffers<D: Device> {
    codes: Buffer<D, u8>,
    scales: Buffer<D, f32>,
    sums: Buffer<D, u32>,
    squares: Buffer<D, f32>,
}

/// The workspace, divided.
#[derive(Debug)]
pub struct Workspace<D: Device> {
    tables: Buffer<D, u32>,
    angles: Buffer<D, f32>,
    /// An operation reads the ones and may write the others.
    planes: [PlaneBuffers<D>; 2],
    in_use: PlanesInUse,
    partials: Buffer<D, f32>,
    choice: Buffer<D, u64>,
    /// Counters, all 0 between kernels.
    arrivals: Buffer<D, u32>,
    /// Rows that there is room for.
    rows: usize,
    /// Rows of the present pass: the length of a column of its tables.
    pass_rows: usize,
    /// Its choices.
    pass_choices: usize,
    rotated_dims: usize,
    /// Tiles of rows in the present pass, for attention's prefill kernel.
    n_tiles: usize,
    /// Splits of the cache that the decode kernel's grid covers.
    n_splits: usize,
}

impl<D: Device> Workspace<D> {
    pub(super) fn new(
        config: &ModelConfig,
        limits: PassLimits,
        mut region: Region<D>,
    ) -> Result<Self, DeviceError> {
        let sizes = Sizes::new(config, limits);
        let mut part = |bytes: usize| region.split_off(bytes as u64);
        let mut planes = |sizes: PlaneSizes| {
            Ok::<_, DeviceError>(PlaneBuffers {
                codes: part(sizes.codes)?.typed(),
                scales: part(sizes.scales)?.typed(),
                sums: part(sizes.sums)?.typed(),
                squares: part(sizes.squares)?.typed(),
            })
        };
        let planes = [planes(sizes.planes[0])?, planes(sizes.planes[1])?];
        let mut arrivals: Buffer<D, u32> = part(sizes.arrivals)?.typed();
        arrivals.upload(&vec![0; arrivals.len()], 0)?;
        Ok(Self {
            tables: part(sizes.tables)?.typed(),
            angles: part(sizes.angles)?.typed(),
            planes,
            in_use: PlanesInUse::default(),
            partials: part(sizes.partials)?.typed(),
            choice: part(sizes.choice)?.typed(),
            arrivals,
            rows: limits.rows,
            pass_rows: 0,
            pass_choices: 0,
            rotated_dims: config.rope.rotated_dims,
            n_tiles: 0,
            n_splits: 0,
        })
    }

    /// Uploads what the kernels must know of a pass: six columns of a number a row; of each choice its result, which is 0
    /// so far, and its parameters; then pages and recent tokens. Where a part begins depends on the number of rows and
    /// choices alone, so a recording for so many stays valid. `pass` has at most as many rows as the workspace.
    pub(super) fn begin(&mut self, pass: &Pass<'_>) -> Result<(), OpsError> {
        self.in_use = PlanesInUse::default();
        let (rows, n_choices) = (pass.n_rows(), pass.choices.len());
        let mut tables = vec![0_u32; choices_at(rows) + n_choices * choice::TABLE_WORDS];
        let mut tiles = Vec::new();
        let mut pages = Vec::new();
        tables[..rows].copy_from_slice(pass.tokens);
        for span in pass.spans {
            let needed = (span.position + span.n_rows).div_ceil(PAGE_TOKENS);
            for i in 0..span.n_rows {
                let row = span.first_row + i;
                tables[rows + row] = (span.position + i) as u32;
                tables[2 * rows + row] = pages.len() as u32;
                tables[3 * rows + row] = span.rotary_set as u32;
            }
            for first in (0..span.n_rows).step_by(ATTEND_TILE_ROWS) {
                let n_rows = ATTEND_TILE_ROWS.min(span.n_rows - first);
                tiles.extend([(span.first_row + first) as u32, n_rows as u32]);
            }
            pages.extend_from_slice(&span.pages[..needed]);
        }
        tables[4 * rows..][..tiles.len()].copy_from_slice(&tiles);
        tables.extend(pages);
        (self.pass_rows, self.pass_choices, self.n_tiles) = (rows, n_choices, tiles.len() / 2);
        for (index, choice) in pass.choices.iter().enumerate() {
            let row = choice::row(choice, tables.len());
            let at = self.choice_row_at(index);
            tables[at..][..size_of::<ChoiceRow>() / 4].copy_from_slice(bytemuck::cast_slice(&[row]));
            tables.extend(choice.recent.counts().iter().flat_map(|&(token, count)| [token, count]));
        }
        // A power of two, so that few graphs serve all lengths.
        let splits = pass.longest().div_ceil(SPLIT_TOKENS).max(1);
        self.n_splits = splits.next_power_of_two();
        let (found, expected) = (tables.len(), self.tables.len());
        if found > expected {
            return Err(OpsError::Shape { operation: "run", operand: "words of tables", found, expected });
        }
        Ok(self.tables.upload(&tables, 0)?)
    }

    /// Where a choice's parameters are in the tables.
    fn choice_row_at(&self, index: usize) -> usize {
        let results = size_of::<u64>() / 4 * self.pass_choices;
        choices_at(self.pass_rows) + results + size_of::<ChoiceRow>() / 4 * index
    }
    fn table_address(&self, word: usize) -> Address {
        self.tables.address() + 4 * word as u64
    }

    /// Rows of the largest pass.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }
    /// Addresses of the pass's tables.
    pub(super) fn tables(&self) -> PassTables {
        let column = |index: usize| self.table_address(index * self.pass_rows);
        PassTables {
            tokens: column(0),
            positions: column(1),
            page_lists: column(2),
            rotary_set: column(3),
            pages: self.table_address(self.choice_row_at(self.pass_choices)),
            angles: self.angles.address(),
        }
    }
    /// Address of the tiles of rows, and their number.
    pub(super) fn tiles(&self) -> (u64, u32) {
        (self.table_address(4 * self.pass_rows), self.n_tiles as u32)
    }
    /// Address of attention's partial sums, and the splits that a grid for this pass covers.
    pub(super) fn partials(&self, heads: HeadShape, n_rows: usize) -> (u64, u32) {
        let each = (n_rows * heads.q_heads * (heads.head_dim + 2)).max(1);
        (self.partials.address(), self.n_splits.min(self.partials.len() / each) as u32)
    }
    /// Splits that a grid for this pass covers: what a recording depends on.
    pub(super) fn n_splits(&self) -> usize {
        self.n_splits
    }
    fn planes_at(&self, index: usize, is_normed: bool) -> Planes {
        let PlaneBuffers { codes, scales, sums, squares } = &self.planes[index];
        Planes {
            codes: codes.address(),
            scales: scales.address(),
            sums: sums.address(),
            squares: if is_normed { squares.address() } else { 0 },
        }
    }
    /// The planes that the next product reads.
    pub(super) fn planes(&self, is_normed: bool) -> Planes {
        self.planes_at(self.in_use.index, is_normed)
    }
    /// Whether these rows stand in planes already. What stood there counts as used.
    pub(super) fn take_prepared(&mut self, rows: Prepared) -> bool {
        self.in_use.prepared.take() == Some(rows)
    }
    /// Planes for any number of rows, which the next product reads; what is prepared is lost.
    pub(super) fn renew_planes(&mut self, is_normed: bool) -> Planes {
        self.in_use = PlanesInUse::default();
        self.planes(is_normed)
    }
    /// Planes for an operation on up to [`DECODE_ROWS`] rows to leave its results in while it reads others.
    pub(super) fn next_planes(&self, is_normed: bool) -> Planes {
        self.planes_at(1 - self.in_use.index, is_normed)
    }
    /// An operation has left these rows in [`Workspace::next_planes`].
    pub(super) fn set_prepared(&mut self, rows: Prepared) {
        self.in_use = PlanesInUse { index: 1 - self.in_use.index, prepared: Some(rows) };
    }
    /// An operation has written rows that it left nowhere else.
    pub(super) fn forget_prepared(&mut self) {
        self.in_use.prepared = None;
    }
    /// What a recording leaves behind when it has run.
    pub(super) fn in_use(&self) -> PlanesInUse {
        self.in_use
    }
    /// A recording has run that left this behind.
    pub(super) fn set_in_use(&mut self, in_use: PlanesInUse) {
        self.in_use = in_use;
    }
    /// Counters for each 256 columns of up to [`DECODE_ROWS`] rows.
    pub(super) fn arrivals(&self) -> Address {
        self.arrivals.address()
    }
    /// Dimensions of a head that are turned.
    pub(super) fn rotated_dims(&self) -> usize {
        self.rotated_dims
    }
    /// The pass's choices from choice `first` on.
    pub(super) fn choices(&self, first: usize) -> ChoiceTables {
        let results = choices_at(self.pass_rows) + size_of::<u64>() / 4 * first;
        ChoiceTables {
            best: self.table_address(results),
            rows: self.table_address(self.choice_row_at(first)),
            recent: self.tables.address(),
        }
    }
    /// How many choices the pass has.
    pub(super) fn n_choices(&self) -> usize {
        self.pass_choices
    }
    /// Results of the pass's choices.
    pub(super) fn chosen(&self) -> Result<Vec<u64>, DeviceError> {
        let mut results = vec![0_u64; self.pass_choices];
        self.tables.download(choices_at(self.pass_rows), bytemuck::cast_slice_mut(&mut results))?;
        Ok(results)
    }
    /// Bytes of the choices' histograms, bounds and slices.
    pub(super) fn choice_bytes(&self) -> usize {
        size_of::<u64>() * self.choice.len()
    }
    /// Their address.
    pub(super) fn choice_scratch(&self) -> Address {
        self.choice.address()
    }
}
