//! The format table, blocks computed by hand, and what holds for any weights.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use proptest::prelude::*;
use worker_orcd::quant::{FORMATS, Format, QuantError};

fn dequantized(format: Format, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; bytes.len() / format.block_bytes() * format.block_elements()];
    format.dequantize(bytes, &mut out).unwrap();
    out
}

fn there_and_back(format: Format, values: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0xa5; values.len() / format.block_elements() * format.block_bytes()];
    format.quantize(values, &mut bytes).unwrap();
    dequantized(format, &bytes)
}

fn writable() -> impl Iterator<Item = Format> {
    FORMATS.iter().filter(|row| row.quantize.is_some()).map(|row| row.format)
}

#[test]
fn the_table_is_indexed_by_the_enum_and_names_each_format_once() {
    for (i, row) in FORMATS.iter().enumerate() {
        assert_eq!(row.format as usize, i);
        assert!(std::ptr::eq(row.format.row(), row));
        assert_eq!(Format::from_ggml_id(row.ggml_id), Some(row.format));
        assert_eq!(row.format.to_string(), row.name);
        assert_eq!(format!("{:?}", row.format), row.name);
    }
    assert_eq!(FORMATS.iter().map(|row| row.ggml_id).collect::<HashSet<_>>().len(), FORMATS.len());
    assert_eq!(FORMATS.iter().map(|row| row.name).collect::<HashSet<_>>().len(), FORMATS.len());
    // 4 and 5 were Q4_2 and Q4_3, which ggml has removed; 9 is Q8_1, which no file holds.
    for id in [4, 5, 9, 1000, u32::MAX] {
        assert_eq!(Format::from_ggml_id(id), None);
    }
}

#[test]
fn the_formats_that_a_synthetic_file_needs_can_be_written() {
    use Format::*;
    assert_eq!(writable().collect::<Vec<_>>(), [F32, F16, BF16, Q4_0, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K]);
}

#[test]
fn a_row_is_whole_blocks_and_does_not_overflow() {
    assert_eq!(Format::Q4_K.row_bytes(3072), Some(12 * 144));
    assert_eq!(Format::Q4_K.row_bytes(896), None);
    assert_eq!(Format::Q5_0.row_bytes(896), Some(28 * 22));
    assert_eq!(Format::Q6_K.row_bytes(0), Some(0));
    assert_eq!(Format::F32.row_bytes(u64::MAX / 4), Some(u64::MAX / 4 * 4));
    assert_eq!(Format::F32.row_bytes(u64::MAX / 2), None);
}

#[test]
fn a_q4_0_block_computed_by_hand() {
    let mut block = [0x88; 18];
    block[..2].copy_from_slice(&[0x00, 0x38]); // d = 0.5
    block[2] = 0x1f; // weight 0: 15, weight 16: 1
    let mut expected = [0.0; 32];
    expected[0] = (15.0 - 8.0) * 0.5;
    expected[16] = (1.0 - 8.0) * 0.5;
    assert_eq!(dequantized(Format::Q4_0, &block), expected);
}

#[test]
fn a_q4_k_block_computed_by_hand() {
    let mut block = [0; 144];
    block[..4].copy_from_slice(&[0x00, 0x3c, 0x00, 0x38]); // d = 1, dmin = 0.5
    let scales = &mut block[4..16];
    (scales[0], scales[4]) = (2, 3); // group 0: scale 2, minimum 3
    (scales[1], scales[5], scales[9]) = (0b10 << 6, 0b01 << 6, 0x21); // group 5: scale 33, minimum 18
    block[16] = 9; // weight 0
    block[16 + 2 * 32 + 1] = 7 << 4; // weight 161
    let mut expected = [0.0; 256];
    expected[..32].fill(-0.5 * 3.0);
    expected[0] += 2.0 * 9.0;
    expected[160..192].fill(-0.5 * 18.0);
    expected[161] += 33.0 * 7.0;
    assert_eq!(dequantized(Format::Q4_K, &block), expected);
}

#[test]
fn a_q6_k_block_computed_by_hand() {
    let mut block = [0; 210];
    block[208..].copy_from_slice(&[0x00, 0x34]); // d = 0.25
    block[192 + 12] = (-3i8).cast_unsigned(); // the scale of weights 192 to 207
    block[64 + 8] = 0xa << 4; // weight 200, lower four bits
    block[128 + 32 + 8] = 2 << 4; // weight 200, upper two bits
    let mut expected = [0.0; 256];
    expected[192..208].fill(0.25 * -3.0 * -32.0);
    expected[200] = 0.25 * -3.0 * (42.0 - 32.0);
    assert_eq!(dequantized(Format::Q6_K, &block), expected);
}

#[test]
fn each_misuse_has_its_error() {
    let format = Format::Q8_0;
    assert_eq!(
        format.dequantize(&[0; 34], &mut [0.0; 31]),
        Err(QuantError::PartialBlock { format, values: 31, block_elements: 32 })
    );
    let error = format.dequantize(&[0; 35], &mut [0.0; 32]).unwrap_err();
    assert_eq!(error, QuantError::ByteLength { format, values: 32, expected: 34, found: 35 });
    assert_eq!(error.to_string(), "Q8_0: 32 weights take 34 bytes, but the byte buffer holds 35");
    assert_eq!(
        format.quantize(&[0.0; 64], &mut [0; 34]),
        Err(QuantError::ByteLength { format, values: 64, expected: 68, found: 34 })
    );
    let format = Format::Q2_K;
    let error = format.quantize(&[0.0; 256], &mut [0; 84]).unwrap_err();
    assert_eq!(error, QuantError::NotWritable { format });
    assert!(error.to_string().ends_with("F32, F16, BF16, Q4_0, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K"), "{error}");
}

#[test]
fn a_weight_that_is_not_finite_is_refused_and_nothing_is_written() {
    for format in writable() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 2 * format.block_elements()];
            let index = values.len() - 1;
            values[index] = bad;
            let mut bytes = vec![0xa5; 2 * format.block_bytes()];
            match format.quantize(&values, &mut bytes) {
                Err(QuantError::NotFinite { format: named, index: found, value }) => {
                    assert_eq!((named, found, value.to_bits()), (format, index, bad.to_bits()));
                }
                other => panic!("{format}: {other:?}"),
            }
            assert!(bytes.iter().all(|&byte| byte == 0xa5), "{format}");
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    for format in writable() {
        for zero in [0.0, -0.0] {
            assert!(there_and_back(format, &[zero; 512]).iter().all(|&x| x == 0.0), "{format}");
        }
    }
}

#[test]
fn a_single_is_kept_to_the_bit() {
    let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 8.0, f32::MAX, f32::MIN];
    let found = there_and_back(Format::F32, &values);
    assert!(found.iter().zip(values).all(|(found, value)| found.to_bits() == value.to_bits()), "{found:?}");
}

#[test]
fn what_is_beyond_a_format_becomes_its_largest() {
    for (format, largest) in [
        (Format::F16, 65504.0),
        (Format::Q8_0, 65504.0 * 127.0),
        (Format::Q4_0, 65504.0 * 8.0),
        (Format::Q5_0, 65504.0 * 16.0),
        (Format::Q4_K, 65504.0 * 63.0 * 15.0),
        (Format::Q5_K, 65504.0 * 63.0 * 31.0),
        (Format::Q6_K, 65504.0 * 128.0 * 32.0),
    ] {
        let mut values = [0.0; 256];
        values[0] = f32::MAX;
        assert_eq!(there_and_back(format, &values)[0], largest, "{format}");
    }
}

/// Weights of any magnitude, with many zeros and many of the largest single.
fn extreme() -> impl Strategy<Value = Vec<f32>> {
    let any_finite = any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite());
    prop::collection::vec(prop_oneof![4 => any_finite, 1 => Just(0.0), 1 => Just(f32::MAX)], 256)
}

/// Weights of one sign or both, of groups of any size from 10^-2 to 10^3, on either side of zero.
fn ordinary() -> impl Strategy<Value = Vec<f32>> {
    let group = (-2.0f32..3.0, -1.5f32..1.5, prop::collection::vec(-1.0f32..1.0, 32))
        .prop_map(|(log, shift, x)| x.into_iter().map(|x| 10f32.powf(log) * (x + shift)).collect::<Vec<_>>());
    prop::collection::vec(group, 8).prop_map(|groups| groups.concat())
}

/// What the root mean square of the error in a block may not exceed, where `largest` is the magnitude of its largest
/// weight.
///
/// With `n` codes on the side of the largest weight, a step is `1 / n` of it. The simple formats round to half a step, lose
/// up to one step where the other side has a code less, and 2^-11 by the rounding of the scale. The K-quants add half
/// of a 63rd (Q4_K, Q5_K) or of a 128th (Q6_K) of the largest scale and minimum, at the largest code. A scale
/// that is a subnormal half is off by up to 2^-25, times what it is multiplied by.
fn error_bound(format: Format, largest: f32) -> f32 {
    let half = 1.0 / 2048.0;
    let (relative, multiplier) = match format {
        Format::F32 => (0.0, 0.0),
        Format::F16 => (half, 1.0),
        Format::BF16 => (1.0 / 256.0, 0.0),
        Format::Q8_0 => (0.5 / 127.0 + half, 127.0),
        Format::Q4_0 => (1.0 / 8.0 + half, 8.0),
        Format::Q5_0 => (1.0 / 16.0 + half, 16.0),
        // The range is twice the largest where both signs occur.
        Format::Q4_K => (2.0 / 15.0 * (0.5 + 15.0 / 126.0) + 1.0 / 126.0 + half, 63.0 * 16.0),
        Format::Q5_K => (2.0 / 31.0 * (0.5 + 31.0 / 126.0) + 1.0 / 126.0 + half, 63.0 * 32.0),
        Format::Q6_K => (1.0 / 32.0 * (1.0 + 32.0 / 256.0) + half, 128.0 * 32.0),
        _ => panic!("{format} is not written"),
    };
    relative * largest + multiplier * 2f32.powi(-25)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_finite_weights_give_finite_weights(values in extreme()) {
        for format in writable() {
            let found = there_and_back(format, &values);
            prop_assert!(found.iter().all(|x| x.is_finite()), "{}: {:?}", format, found);
        }
    }

    #[test]
    fn the_error_of_a_block_is_bounded(values in ordinary()) {
        for format in writable() {
            let found = there_and_back(format, &values);
            let n = format.block_elements();
            for (values, found) in values.chunks(n).zip(found.chunks(n)) {
                let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let squares: f32 = values.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum();
                let error = (squares / n as f32).sqrt();
                prop_assert!(error <= error_bound(format, largest), "{}: {} of {}", format, error, largest);
            }
        }
    }

    #[test]
    fn a_q8_0_block_is_found_again(
        d in 0x0400u16..0x7c00, codes in prop::collection::vec(-127i8..=127, 32), largest in 0usize..32
    ) {
        // The scale is any normal half; the largest code tells what it is.
        let mut block = d.to_le_bytes().to_vec();
        block.extend(codes.iter().map(|code| code.cast_unsigned()));
        block[2 + largest] = 127;
        let mut again = vec![0; 34];
        Format::Q8_0.quantize(&dequantized(Format::Q8_0, &block), &mut again).unwrap();
        prop_assert_eq!(again, block);
    }
}
