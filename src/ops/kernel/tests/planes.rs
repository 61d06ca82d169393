//! Activations in fixed point.

use crate::device::{Buffer, EmulatorDevice};
use crate::ops::Rows;

use super::super::params::{Planes, QuantizeParams};
use super::{Random, launch, on_device, rows};

/// Planes on the device, and as the host reads them.
pub(super) struct HostPlanes {
    n_cols: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<u8>,
    squares: Vec<f32>,
    on_device: (Buffer<EmulatorDevice, i8>, Buffer<EmulatorDevice, f32>, Buffer<EmulatorDevice, u8>),
}

impl HostPlanes {
    /// What `quantize` makes of rows `first..first + n`.
    pub(super) fn new(
        device: &EmulatorDevice,
        x: &Rows<EmulatorDevice>,
        first: usize,
        n: usize,
        norm: Option<&[f32]>,
    ) -> Self {
        let (tiles, units, blocks) = (n.div_ceil(4), x.width.div_ceil(64), x.width.div_ceil(256));
        let codes = on_device(device, &vec![0x5a_i8; tiles * units * 512]);
        let scales = on_device(device, &vec![f32::NAN; tiles * blocks * 4]);
        let sums = on_device(device, &vec![0x5a_u8; tiles * blocks * 96]);
        let squares = on_device(device, &vec![f32::NAN; tiles * blocks * 4]);
        let weight = norm.map(|weight| on_device(device, weight));
        let params = QuantizeParams {
            x: x.values.address(),
            norm: weight.as_ref().map_or(0, Buffer::address),
            planes: Planes {
                codes: codes.address(),
                scales: scales.address(),
                sums: sums.address(),
                squares: squares.address(),
            },
            first_row: first as u32,
            n_rows: n as u32,
            n_columns: x.width as u32,
            stride: x.stride() as u32,
        };
        launch(device, "quantize", [x.width.div_ceil(2048), 4 * tiles], 256, &params);
        let mut host = (vec![0; codes.len()], vec![0.0; scales.len()], vec![0; sums.len()]);
        let mut host_squares = vec![0.0; squares.len()];
        squares.download(0, &mut host_squares).unwrap();
        codes.download(0, &mut host.0).unwrap();
        scales.download(0, &mut host.1).unwrap();
        sums.download(0, &mut host.2).unwrap();
        Self {
            n_cols: x.width,
            codes: host.0,
            scales: host.1,
            sums: host.2,
            squares: host_squares,
            on_device: (codes, scales, sums),
        }
    }
    /// The addresses, without a norm.
    pub(super) fn params(&self) -> Planes {
        let (codes, scales, sums) = &self.on_device;
        Planes { codes: codes.address(), scales: scales.address(), sums: sums.address(), squares: 0 }
    }
    fn digit(&self, row: usize, plane: usize, column: usize) -> i32 {
        let tile = row / 4 * self.n_cols.div_ceil(64) + column / 64;
        let lane = 8 * (row % 4) + 4 * plane + column % 16 / 4;
        i32::from(self.codes[(tile * 32 + lane) * 16 + 4 * (column % 64 / 16) + column % 4])
    }
    fn code(&self, row: usize, column: usize) -> i32 {
        256 * self.digit(row, 0, column) + self.digit(row, 1, column)
    }
    fn scale(&self, row: usize, block: usize) -> f32 {
        self.scales[(row / 4 * self.n_cols.div_ceil(256) + block) * 4 + row % 4]
    }
    /// The sum of the squares of a block.
    fn squares(&self, row: usize, block: usize) -> f32 {
        self.squares[(row / 4 * self.n_cols.div_ceil(256) + block) * 4 + row % 4]
    }
    /// The sum of the codes of columns `32 group..`.
    fn sum(&self, row: usize, group: usize) -> i32 {
        let tile = row / 4 * self.n_cols.div_ceil(256) + group / 8;
        let digit = |digit: usize| self.sums[((tile * 3 + digit) * 4 + row % 4) * 8 + group % 8];
        i32::from(digit(0)) + 256 * i32::from(digit(1)) + 65536 * i32::from(digit(2) as i8)
    }
    /// What stands for an activation.
    pub(super) fn value(&self, row: usize, column: usize) -> f64 {
        f64::from(self.scale(row, column / 256)) * f64::from(self.code(row, column))
    }
    /// Codes, scales and sums of the columns of a row, with all that pads it.
    fn row(&self, row: usize) -> (Vec<i32>, Vec<u32>, Vec<i32>) {
        let (columns, blocks) = (self.n_cols.next_multiple_of(64), self.n_cols.div_ceil(256));
        (
            (0..columns).map(|column| self.code(row, column)).collect(),
            (0..blocks).map(|block| self.scale(row, block).to_bits()).collect(),
            (0..8 * blocks).map(|group| self.sum(row, group)).collect(),
        )
    }
}

const WIDTHS: [usize; 9] = [1, 5, 40, 64, 250, 256, 300, 896, 8192];

/// Every block's scale, codes and sums belong together, and to these values.
fn check(planes: &HostPlanes, row: usize, y: &[f64], tolerance: f64) {
    for (block, values) in y.chunks(256).enumerate() {
        let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let scale = f64::from(planes.scale(row, block));
        assert!(
            (scale * 32512.0 - largest).abs() <= (tolerance + 1e-7) * largest,
            "{scale:e} for {largest:e}"
        );
        for (i, &value) in values.iter().enumerate() {
            let code = planes.code(row, 256 * block + i);
            let error = (value - scale * f64::from(code)).abs();
            let allowed = scale * 0.505 + tolerance * value.abs();
            assert!(error <= allowed, "row {row} column {}: {error:e} > {allowed:e}", 256 * block + i);
        }
    }
    let (codes, _, sums) = planes.row(row);
    assert!(codes.iter().all(|code| code.abs() <= 32512));
    assert!(codes[y.len()..].iter().all(|&code| code == 0), "codes beyond the last column");
    for (group, &sum) in sums.iter().enumerate() {
        let codes = codes.iter().skip(32 * group).take(32);
        assert_eq!(sum, codes.sum::<i32>(), "row {row} group {group}");
    }
}

#[test]
pub(super) fn activations_keep_sixteen_bits() {
    let (device, mut random) = (EmulatorDevice::default(), Random(21));
    for width in WIDTHS {
        let mut values = random.floats(7 * width);
        values[3 * width..4 * width].fill(0.0);
        values[4 * width..5 * width].fill(-3.0);
        values[5 * width..6 * width].iter_mut().for_each(|value| *value *= 3e38);
        values[6 * width..].iter_mut().for_each(|value| *value *= 1e-29);
        let x = rows(&device, width, &values);
        let planes = HostPlanes::new(&device, &x, 1, 6, None);
        for row in 0..6 {
            let y: Vec<f64> = values[(row + 1) * width..][..width].iter().map(|&x| f64::from(x)).collect();
            check(&planes, row, &y, 0.0);
        }
        for row in [6, 7] {
            let (codes, scales, sums) = planes.row(row);
            assert!(
                codes.iter().chain(&sums).all(|&number| number == 0) && scales.iter().all(|&bits| bits == 0)
            );
        }
        let alone = HostPlanes::new(&device, &x, 5, 1, None);
        assert_eq!(alone.row(0), planes.row(4), "a row alone");
    }
}

#[test]
pub(super) fn weights_of_a_norm_and_the_squares_come_before() {
    let (device, mut random) = (EmulatorDevice::default(), Random(22));
    for width in WIDTHS {
        let (values, weight) = (random.floats(3 * width), random.floats(width));
        let planes = HostPlanes::new(&device, &rows(&device, width, &values), 0, 3, Some(&weight));
        for (row, x) in values.chunks_exact(width).enumerate() {
            let y: Vec<f64> = x.iter().zip(&weight).map(|(&x, &w)| f64::from(x) * f64::from(w)).collect();
            check(&planes, row, &y, 1e-6);
            for (block, x) in x.chunks(256).enumerate() {
                let exact: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
                let found = f64::from(planes.squares(row, block));
                assert!((found - exact).abs() <= 1e-6 * exact, "row {row} block {block}: {found} {exact}");
            }
        }
    }
}

#[test]
pub(super) fn tiny_blocks_are_zero_and_what_is_no_number_stands_in_the_scale() {
    let device = EmulatorDevice::default();
    let mut values = vec![0.25_f32; 5 * 512];
    values[3] = f32::NAN;
    values[512 + 255] = f32::INFINITY;
    values[2 * 512 + 7] = f32::NEG_INFINITY;
    values[2 * 512 + 8] = f32::NAN;
    values[3 * 512..3 * 512 + 256].fill(1e-31);
    values[4 * 512..4 * 512 + 256].fill(f32::from_bits(1));
    let planes = HostPlanes::new(&device, &rows(&device, 512, &values), 0, 5, None);
    for row in 0..5 {
        let scale = planes.scale(row, 0);
        assert!((0..256).all(|column| planes.code(row, column) == 0), "row {row}");
        assert_eq!(scale.is_nan(), row == 0 || row == 2, "row {row}: {scale}");
        assert_eq!(scale == f32::INFINITY, row == 1, "row {row}: {scale}");
        assert!(row < 3 || scale == 0.0, "row {row}: {scale}");
        assert!((256..512).all(|column| planes.code(row, column) == 32512), "row {row}: the other block");
    }
}
