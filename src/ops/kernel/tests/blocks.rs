//! Products with weights in file order.

use crate::device::EmulatorDevice;
use crate::quant::{FORMATS, Format};

use super::super::matmul::Epilogue;
use super::super::names::kernels;
use super::super::params::MatmulParams;
use super::planes::HostPlanes;
use super::{Random, launch, on_device, rows};

const N_ROWS: usize = 11;

/// Rows of random blocks whose largest weight is neither small nor large, and what they stand for.
fn random_weights(random: &mut Random, format: Format, n_cols: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    let mut weights = vec![0.0; format.block_elements()];
    while values.len() < N_ROWS * n_cols {
        let block = random.bytes(format.block_bytes());
        format.dequantize(&block, &mut weights).unwrap();
        let largest = weights.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
        if weights.iter().all(|weight| weight.is_finite()) && (0.1..10.0).contains(&largest) {
            bytes.extend(block);
            values.extend(&weights);
        }
    }
    (bytes, values)
}

/// A matrix, or two, and planes of as many tokens as asked for.
struct Case<'a> {
    device: EmulatorDevice,
    format: Format,
    matrices: [&'a [u8]; 2],
    n_cols: usize,
}

impl Case<'_> {
    fn product(
        &self,
        planes: &HostPlanes,
        n: usize,
        epilogue: Epilogue,
        bias: &[f32],
        before: f32,
    ) -> Vec<f32> {
        let weights = self.matrices.map(|bytes| on_device(&self.device, bytes));
        let bias = (!bias.is_empty()).then(|| on_device(&self.device, bias));
        let stride = N_ROWS + 3;
        let out = on_device(&self.device, &vec![before; n * stride]);
        let params = MatmulParams {
            weights: weights.each_ref().map(|weights| weights.address()),
            planes: planes.params(),
            bias: bias.as_ref().map_or(0, |bias| bias.address()),
            out: out.address(),
            n_rows: N_ROWS as u32,
            n_columns: self.n_cols as u32,
            n_tokens: n as u32,
            stride: stride as u32,
            epilogue: epilogue as u32,
            ..MatmulParams::default()
        };
        let grid = [N_ROWS.div_ceil(8), n.div_ceil(4)];
        launch(&self.device, kernels(self.format).matmul, grid, 256, &params);
        let mut all = vec![0.0; n * stride];
        out.download(0, &mut all).unwrap();
        assert!(all.chunks_exact(stride).all(|row| row[N_ROWS..].iter().all(|&value| value == before)));
        all.chunks_exact(stride).flat_map(|row| row[..N_ROWS].to_vec()).collect()
    }
}

#[test]
pub(super) fn products_are_those_of_weights_and_activations() {
    let mut random = Random(31);
    let device = EmulatorDevice::default();
    for row in &FORMATS {
        for n_cols in [1, 7, 40, 96, 768, 896, 2304, 2600] {
            if n_cols % row.block_elements != 0 {
                continue;
            }
            let (bytes, weights) = random_weights(&mut random, row.format, n_cols);
            let x = rows(&device, n_cols, &random.floats(6 * n_cols));
            let planes = HostPlanes::new(&device, &x, 0, 6, None);
            let case =
                Case { device: device.clone(), format: row.format, matrices: [&bytes, &bytes], n_cols };
            let all = case.product(&planes, 6, Epilogue::Store, &[], 3.0);
            for (i, found) in all.iter().enumerate() {
                let weights = &weights[i % N_ROWS * n_cols..][..n_cols];
                let terms =
                    weights.iter().enumerate().map(|(j, &w)| f64::from(w) * planes.value(i / N_ROWS, j));
                let (expected, size) =
                    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 2e-6 * size, "{} of {n_cols}, {i}: {found}, expected {expected}", row.name);
            }
            for n in [1, 3, 5] {
                let some = case.product(&planes, n, Epilogue::Store, &[], 3.0);
                let same = some.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} of {n_cols}: {n} tokens", row.name);
            }
        }
    }
}

#[test]
pub(super) fn epilogues_add_and_gate() {
    let mut random = Random(32);
    let device = EmulatorDevice::default();
    let n_cols = 320;
    let (first, _) = random_weights(&mut random, Format::Q4_1, n_cols);
    let (second, _) = random_weights(&mut random, Format::Q4_1, n_cols);
    let bias = random.floats(N_ROWS);
    let planes = HostPlanes::new(&device, &rows(&device, n_cols, &random.floats(2 * n_cols)), 0, 2, None);
    let case = |matrices| Case { device: device.clone(), format: Format::Q4_1, matrices, n_cols };
    let run = |matrices, epilogue, bias: &[f32]| case(matrices).product(&planes, 2, epilogue, bias, 1.5);
    let gate = run([&first, &second], Epilogue::Store, &[]);
    let up = run([&second, &first], Epilogue::Store, &[]);
    let each = |found: &[f32], expected: &dyn Fn(usize) -> f64| {
        for (i, &found) in found.iter().enumerate() {
            let expected = expected(i);
            assert!(
                (f64::from(found) - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
                "{found} {expected}"
            );
        }
    };
    let silu = |x: f32| f64::from(x) / (1.0 + (-f64::from(x)).exp());
    let biased = |i: usize| f64::from(gate[i]) + f64::from(bias[i % N_ROWS]);
    each(&run([&first, &second], Epilogue::Store, &bias), &biased);
    each(&run([&first, &second], Epilogue::Add, &[]), &|i| 1.5 + f64::from(gate[i]));
    each(&run([&first, &second], Epilogue::Add, &bias), &|i| 1.5 + biased(i));
    each(&run([&first, &second], Epilogue::Swiglu, &[]), &|i| silu(gate[i]) * f64::from(up[i]));
    each(&run([&first, &second], Epilogue::Gate, &[]), &|i| silu(1.5) * f64::from(gate[i]));
}
