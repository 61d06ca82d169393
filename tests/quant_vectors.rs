//! Blocks against vectors that ggml's own reference made: `tests/data/quant/vectors.safetensors`, cut by
//! `scripts/quant-vectors-subset` out of a larger file. Where `WORKER_ORCD_GOLDEN` names a folder that holds the larger
//! file, `quant_vectors.safetensors`, all of that is tested too.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use worker_orcd::quant::{FORMATS, Format};

/// Runs a check on the vectors in the tree, and on the full file where there is one.
fn on_each_file(check: impl Fn(&SafeTensors<'_>)) {
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quant/vectors.safetensors")];
    match std::env::var_os("WORKER_ORCD_GOLDEN") {
        Some(folder) => files.push(PathBuf::from(folder).join("quant_vectors.safetensors")),
        None => println!("skipped: the full vectors (WORKER_ORCD_GOLDEN is not set)"),
    }
    for file in files {
        println!("{}", file.display());
        let data = std::fs::read(&file).unwrap();
        check(&SafeTensors::deserialize(&data).unwrap());
    }
}

fn bytes<'a>(vectors: &SafeTensors<'a>, format: Format, set: &str) -> &'a [u8] {
    vectors.tensor(&format!("{format}.{set}.bytes")).unwrap().data()
}

fn singles(vectors: &SafeTensors<'_>, format: Format, name: &str) -> Vec<f32> {
    let tensor = vectors.tensor(&format!("{format}.{name}")).unwrap();
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn dequantized(format: Format, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; bytes.len() / format.block_bytes() * format.block_elements()];
    format.dequantize(bytes, &mut out).unwrap();
    out
}

fn quantized(format: Format, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0xa5; values.len() / format.block_elements() * format.block_bytes()];
    format.quantize(values, &mut out).unwrap();
    out
}

/// Root mean square of the differences, relative to that of the source.
fn relative_error(source: &[f32], values: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = source.iter().zip(values).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = source.iter().map(|&a| square(f64::from(a))).sum();
    (difference / size).sqrt()
}

#[test]
fn dequantized_weights_equal_ggmls_to_the_bit() {
    on_each_file(|vectors| {
        for row in FORMATS.iter().filter(|row| row.format != Format::F32) {
            let expected = singles(vectors, row.format, "random.f32");
            let found = dequantized(row.format, bytes(vectors, row.format, "random"));
            assert_eq!(found.len(), expected.len(), "{}", row.name);
            assert!(expected.len() >= 2048, "{}: the vectors are too few", row.name);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                    "{} weight {i}: found {found:?}, expected {expected:?}",
                    row.name
                );
            }
        }
    });
}

#[test]
fn the_vectors_hold_the_rare_scales() {
    on_each_file(|vectors| {
        for row in
            FORMATS.iter().filter(|row| !matches!(row.format, Format::F32 | Format::BF16 | Format::Q8_K))
        {
            let values = singles(vectors, row.format, "random.f32");
            let any = |test: fn(f32) -> bool| values.iter().any(|&x| test(x));
            assert!(any(|x| x == 0.0), "{}: no zero", row.name);
            assert!(any(|x| x != 0.0 && x.abs() < 1e-3), "{}: nothing near the subnormal halves", row.name);
            assert!(any(|x| x < 0.0) && any(|x| x > 0.0), "{}: one sign only", row.name);
            assert!(any(|x| x.abs() > 1.0), "{}: nothing large", row.name);
        }
    });
}

#[test]
fn simple_formats_quantize_to_ggmls_bytes() {
    on_each_file(|vectors| {
        for format in [Format::F16, Format::BF16, Format::Q4_0, Format::Q5_0, Format::Q8_0] {
            let expected = bytes(vectors, format, "gauss");
            let found = quantized(format, &singles(vectors, format, "gauss.source_f32"));
            let size = format.block_bytes();
            for (i, (found, expected)) in found.chunks(size).zip(expected.chunks(size)).enumerate() {
                assert_eq!(found, expected, "{format} block {i}");
            }
            assert_eq!(found.len(), expected.len());
        }
    });
}

#[test]
fn k_quants_err_no_more_than_ggmls() {
    on_each_file(|vectors| {
        for format in [Format::Q4_K, Format::Q5_K, Format::Q6_K] {
            let source = singles(vectors, format, "gauss.source_f32");
            let theirs = relative_error(&source, &dequantized(format, bytes(vectors, format, "gauss")));
            let ours = relative_error(&source, &dequantized(format, &quantized(format, &source)));
            println!("{format}: {ours:.6} relative, ggml {theirs:.6}");
            assert!(ours <= theirs, "{format}: relative error {ours}, ggml's {theirs}");
        }
    });
}
