//! Choosing tokens: the kernels choose what the reference chooses.

use bytemuck::NoUninit;

use crate::device::{EmulatorDevice, EmulatorOptions, Region};
use crate::model::{CATALOG, ModelConfig};
use crate::ops::reference::{self, exponential};
use crate::ops::{Choice, Ops, OpsError, Pass, PassLimits, Penalties, Recent, RotaryTable};

use super::super::{KernelOps, Workspace};
use super::{Random, launch, on_device, rows};

/// Logits of a slice, numbers of them around it, and the largest vocabulary of a named model.
const CHOICE_SLICE: usize = 2048;
const WIDTHS: [usize; 8] = [1, 2, 31, 2047, 2048, 2049, 5000, 32064];
const LARGEST_VOCABULARY: usize = 200_064;
/// More rows than go through the kernels together.
const ROWS: usize = 11;

impl Random {
    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[(self.bits() % values.len() as u64) as usize]
    }
}

/// Logits: spread, with ties, all equal, of any bits, few finite ones, none.
fn logits(random: &mut Random, width: usize) -> Vec<f32> {
    let kind = random.bits() % 7;
    let some = random.bits() % 4;
    let mut value = |i: usize| match kind {
        0 => 12.0 * random.uniform(),
        1 => (3.0 * random.uniform()).round(),
        2 => -7.5 + 0.0 * i as f32,
        3 => f32::from_bits(random.bits() as u32),
        4 => [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][i % 3],
        5 if random.bits() % width as u64 > some => f32::NEG_INFINITY,
        5 => random.one_of(&[f32::MIN, f32::MAX, 0.0, -0.0, 1.0]),
        // As a model's: one far above many.
        _ => {
            2.0 * (random.uniform() + random.uniform() + random.uniform())
                + [0.0, 9.0][usize::from(i == width / 2)]
        }
    };
    (0..width).map(&mut value).collect()
}

/// Parameters in all mixtures, those that a configuration refuses among them.
fn choice(random: &mut Random, width: usize) -> Choice {
    let n_recent = random.one_of(&[0, 0, 1, 5, 60]);
    let recent: Vec<u32> = (0..n_recent).map(|_| (random.bits() % (width as u64 + 3)) as u32).collect();
    let neutral = Choice::default().penalties;
    let penalties = Penalties {
        repeat: random.one_of(&[1.0, 1.1, 2.0, 1e-30, 1e30]),
        frequency: random.one_of(&[0.0, 0.5, -0.5, f32::MAX]),
        presence: random.one_of(&[0.0, 0.25, -f32::MAX, f32::MAX]),
    };
    Choice {
        temperature: random.one_of(&[0.0, 0.7, 0.7, 1.0, 1.0, 5.0, 1e-3, 1e-38, 1e30, f32::NAN]),
        top_k: random.one_of(&[0, 0, 1, 2, 40, 1000, width as u32, u32::MAX]),
        top_p: random.one_of(&[1.0, 1.0, 0.95, 0.9, 0.5, 1e-3, 1e-30, 0.999_999_94]),
        min_p: random.one_of(&[0.0, 0.0, 0.05, 1e-6, 1.0]),
        penalties: if random.bits().is_multiple_of(2) { neutral } else { penalties },
        recent: Recent::of(&recent),
        random: random.one_of(&[0, (1 << 53) - 1, random.0 >> 11, random.0 >> 12]),
    }
}

/// Operations, and what surrounds a choice of theirs from rows of `width` logits.
struct Setting {
    ops: KernelOps<EmulatorDevice>,
    workspace: Workspace<EmulatorDevice>,
    rotary: RotaryTable<EmulatorDevice>,
}

impl Setting {
    fn new(options: EmulatorOptions, width: usize, limits: PassLimits) -> Self {
        let ops = KernelOps::new(EmulatorDevice::new(options).unwrap());
        let config = ModelConfig { vocab_size: width, ..CATALOG[0].config() };
        let region = Region::allocate(ops.device(), ops.workspace_bytes(&config, limits)).unwrap();
        let workspace = ops.workspace(&config, limits, region).unwrap();
        let rotary = RotaryTable {
            sets: vec![on_device(ops.device(), &vec![0.1; config.rope.rotated_dims / 2])],
            rotated_dims: config.rope.rotated_dims,
            pairing: config.rope.pairing,
            attention_factor: 1.0,
        };
        Self { ops, workspace, rotary }
    }

    /// What the choices choose, each from its row.
    fn choose(
        &mut self,
        width: usize,
        values: &[f32],
        choices: &[Choice],
    ) -> Result<Vec<Option<u32>>, OpsError> {
        let Self { ops, workspace, rotary } = self;
        let mut logits = rows(ops.device(), width, values);
        let tokens = vec![0; choices.len()];
        let pass = Pass { tokens: &tokens, spans: &[], n_logits: choices.len(), choices };
        ops.run(&pass, rotary, workspace, |workspace| ops.choose(&pass, &mut logits, workspace))?;
        ops.chosen(choices.len(), workspace)
    }
}

/// What the choices choose on the host.
fn choose_on_host(width: usize, values: &[f32], choices: &[Choice]) -> Vec<Option<u32>> {
    let rows = values.chunks_exact(width).zip(choices);
    rows.map(|(row, choice)| reference::choose(&mut row.to_vec(), choice)).collect()
}

#[test]
fn what_does_not_fit_is_refused() {
    let limits = PassLimits { rows: 1, context: 64 };
    let mut setting = Setting::new(EmulatorOptions::default(), 3, limits);
    let refused = |result| match result {
        Err(OpsError::Shape { operand, .. }) => operand,
        other => panic!("{other:?}"),
    };
    let recent = Recent::of(&(0..65).collect::<Vec<_>>());
    let choice = Choice { recent, ..Choice::default() };
    assert_eq!(refused(setting.choose(3, &[0.0; 3], &[choice])), "words of tables");
    let wide = vec![0.0; CHOICE_SLICE + 1];
    let one = [Choice::default()];
    assert_eq!(refused(setting.choose(wide.len(), &wide, &one)), "bytes of workspace");
    assert_eq!(setting.choose(3, &[1.0, f32::NAN, 2.0], &one).unwrap(), [Some(2)]);
    assert_eq!(refused(setting.ops.chosen(2, &setting.workspace)), "choices");

    let config = ModelConfig { vocab_size: (1 << 22) + 1, ..CATALOG[0].config() };
    let region = Region::allocate(setting.ops.device(), 0).unwrap();
    let workspace = setting.ops.workspace(&config, limits, region);
    assert_eq!(refused(workspace.map(|_| Vec::new())), "vocabulary");
}

#[test]
pub(super) fn kernels_choose_what_the_reference_chooses() {
    let mut random = Random(19);
    let mut chosen = std::collections::BTreeSet::new();
    for round in 0..64 {
        let width = if round == 63 { LARGEST_VOCABULARY } else { WIDTHS[round % WIDTHS.len()] };
        let n_rows = if round == 63 { 3 } else { ROWS };
        let choices: Vec<Choice> = (0..n_rows).map(|_| choice(&mut random, width)).collect();
        let values: Vec<f32> = (0..n_rows).flat_map(|_| logits(&mut random, width)).collect();
        let shuffle = (!round.is_multiple_of(2)).then_some(round as u64);
        let options = EmulatorOptions { shuffle, poison: true, ..EmulatorOptions::default() };
        let limits = PassLimits { rows: n_rows, context: 1024 };
        let on_device = Setting::new(options, width, limits).choose(width, &values, &choices).unwrap();
        let on_host = choose_on_host(width, &values, &choices);
        for (row, pair) in on_device.iter().zip(&on_host).enumerate() {
            assert_eq!(pair.0, pair.1, "round {round}, row {row} of {width} logits: {:?}", choices[row]);
        }
        chosen.extend(on_host);
    }
    assert!(
        chosen.len() > 100 && chosen.contains(&None),
        "the draws are not of many kinds: {}",
        chosen.len()
    );
}

/// `SelftestParams` of `kernels/emulator/selftest.cu`.
#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct SelftestParams {
    input: u64,
    output: u64,
    n: u32,
    unused: u32,
}

#[test]
fn the_exponential_has_the_bits_of_the_kernels() {
    const N: usize = 1 << 18;
    let device = EmulatorDevice::default();
    // Every 4096th single from -0 to beyond -87.
    let last = (-90.0_f32).to_bits();
    let words: Vec<u32> =
        (0x8000_0000..=last).step_by((last - 0x8000_0000) as usize / (N - 1)).take(N).collect();
    let (input, output) = (on_device(&device, &words), on_device(&device, &words));
    let params =
        SelftestParams { input: input.address(), output: output.address(), n: words.len() as u32, unused: 0 };
    launch(&device, "selftest_exponential", [1, 1], 1024, &params);
    let mut found = vec![0; words.len()];
    output.download(0, &mut found).unwrap();
    for (word, found) in words.into_iter().zip(found) {
        let x = f32::from_bits(word);
        assert_eq!(exponential(x).to_bits(), found, "e^{x:e}");
        assert!(
            (f64::from(exponential(x)) - f64::from(x).exp()).abs() <= 2.4e-7 * f64::from(x).exp() + 2e-38
        );
    }
}
