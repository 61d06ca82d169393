//! Formats as kernels read them: the embedding in both layouts, and the way between the layouts.

use crate::device::{Buffer, EmulatorDevice};
use crate::quant::{FORMATS, Format};

use super::super::names::{STRIP_ROWS, TileKernels, kernels};
use super::super::params::{EmbedParams, PassTables, RepackParams};
use super::{Random, TILED, launch, on_device};

/// Rows of random blocks: every scale that a format can hold, subnormal, infinite and not a number too.
fn random_rows(random: &mut Random, format: Format, n_rows: usize, n_cols: usize) -> Vec<u8> {
    random.bytes(n_rows * format.row_bytes(n_cols as u64).unwrap() as usize)
}

fn tiles(format: Format) -> &'static TileKernels {
    kernels(format).tiles.as_ref().unwrap()
}

/// Runs `repack` or `unpack` over whole strips.
fn moved(format: Format, kernel: &'static str, n_cols: usize, bytes: &[u8]) -> Buffer<EmulatorDevice, u8> {
    let device = EmulatorDevice::default();
    let n_rows = bytes.len() / format.row_bytes(n_cols as u64).unwrap() as usize;
    let from = on_device(&device, bytes);
    let into = on_device(&device, &vec![0x5a_u8; bytes.len()]);
    let params = RepackParams {
        from: from.address(),
        into: into.address(),
        n_rows: n_rows as u32,
        n_columns: n_cols as u32,
    };
    launch(&device, kernel, [n_rows / STRIP_ROWS, n_cols / tiles(format).columns], 128, &params);
    into
}

/// The rows of `tokens` as an embedding kernel writes them; what lies beyond the width stays as it was.
fn embedded(
    kernel: &'static str,
    table: &Buffer<EmulatorDevice, u8>,
    tokens: &[u32],
    n_cols: usize,
) -> Vec<f32> {
    let device = EmulatorDevice::default();
    let stride = n_cols.next_multiple_of(16);
    let on_it = on_device(&device, tokens);
    let x = on_device(&device, &vec![7.5_f32; tokens.len() * stride]);
    let params = EmbedParams {
        tables: PassTables { tokens: on_it.address(), ..PassTables::default() },
        table: table.address(),
        x: x.address(),
        n_rows: tokens.len() as u32,
        n_columns: n_cols as u32,
        stride: stride as u32,
        unused: 0,
    };
    launch(&device, kernel, [tokens.len(), 1], 256, &params);
    let mut all = vec![0.0; tokens.len() * stride];
    x.download(0, &mut all).unwrap();
    let mut rows = Vec::new();
    for row in all.chunks_exact(stride) {
        rows.extend(&row[..n_cols]);
        assert!(row[n_cols..].iter().all(|&value| value == 7.5), "{kernel} wrote beyond the row");
    }
    rows
}

fn assert_same_bits(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{what}: weight {i} is {found:e}, expected {expected:e}");
    }
}

/// What `dequantize` makes of some rows.
fn dequantized(format: Format, bytes: &[u8], tokens: &[u32], n_cols: usize) -> Vec<f32> {
    let row_bytes = format.row_bytes(n_cols as u64).unwrap() as usize;
    let mut values = vec![0.0; tokens.len() * n_cols];
    for (token, row) in tokens.iter().zip(values.chunks_exact_mut(n_cols)) {
        format.dequantize(&bytes[*token as usize * row_bytes..][..row_bytes], row).unwrap();
    }
    values
}

#[test]
pub(super) fn every_format_embeds_what_it_dequantizes_to() {
    let mut random = Random(11);
    let tokens = [5, 0, 36, 17, 17, 2, 9, 36, 30];
    for row in &FORMATS {
        for n_cols in [1, 6, 42, 64, 96, 768, 1088, 1280] {
            if n_cols % row.block_elements != 0 {
                continue;
            }
            let bytes = random_rows(&mut random, row.format, 37, n_cols);
            let table = on_device(&EmulatorDevice::default(), &bytes);
            let found = embedded(kernels(row.format).embed, &table, &tokens, n_cols);
            let expected = dequantized(row.format, &bytes, &tokens, n_cols);
            assert_same_bits(&format!("{} of {n_cols}", row.name), &found, &expected);
        }
    }
}

#[test]
pub(super) fn tiles_embed_what_their_format_dequantizes_to() {
    let mut random = Random(12);
    let tokens: Vec<u32> = (0..48).rev().collect();
    for format in TILED {
        let n_cols = 3 * tiles(format).columns;
        let bytes = random_rows(&mut random, format, tokens.len(), n_cols);
        let table = moved(format, tiles(format).repack, n_cols, &bytes);
        let found = embedded(tiles(format).embed, &table, &tokens, n_cols);
        assert_same_bits(format.name(), &found, &dequantized(format, &bytes, &tokens, n_cols));
    }
}

/// Words `4t`.. of a run of 32 bytes of rows g and g + 8, then words `16 + 4t`.., lane after lane.
fn run<'a>(part: impl Fn(usize) -> [&'a [u8]; 2]) -> Vec<u8> {
    let mut out = Vec::new();
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for half in 0..2 {
            for row in [g, g + 8] {
                out.extend(&part(row)[half][4 * t..4 * t + 4]);
            }
        }
    }
    out
}

/// A run whose 32 bytes stand together from byte `at` on.
fn run_at(rows: &[&[u8]], at: usize) -> Vec<u8> {
    run(|row| [&rows[row][at..at + 16], &rows[row][at + 16..at + 32]])
}

/// The fifth bits of 16 rows of two Q5_0 blocks.
fn fifth_bits(rows: &[&[u8]]) -> Vec<u8> {
    let bit = |row: usize, block: usize, i: usize| rows[row][22 * block + 2 + i / 8] >> (i % 8) & 1;
    let mut out = vec![0; 128];
    for (place, byte) in out.iter_mut().enumerate() {
        let (g, t, b) = (place / 16, place / 4 % 4, place % 4);
        for to in 0..8 {
            let (block, r, h) = (to / 4, to / 2 % 2, to % 2);
            *byte |= bit(g + 8 * r, block, 16 * h + 4 * t + b) << to;
        }
    }
    out
}

/// A tile of 16 rows, each given as its bytes in the file, after the description in `layouts.cuh`.
fn tile(format: Format, rows: &[&[u8]]) -> Vec<u8> {
    let runs = |places: &[usize]| places.iter().flat_map(|&at| run_at(rows, at)).collect::<Vec<_>>();
    let each = |ranges: &[(usize, usize)]| -> Vec<u8> {
        rows.iter().flat_map(|row| ranges.iter().flat_map(|&(from, to)| row[from..to].to_vec())).collect()
    };
    match format {
        Format::Q4_K => [runs(&[16, 48, 80, 112]), each(&[(4, 16), (0, 4)])].concat(),
        Format::Q5_K => [runs(&[48, 80, 112, 144, 16]), each(&[(4, 16), (0, 4)])].concat(),
        Format::Q6_K => [runs(&[0, 32, 64, 96, 128, 160]), each(&[(192, 208)]), each(&[(208, 210)])].concat(),
        Format::Q8_0 => [runs(&[2, 36]), each(&[(0, 2), (34, 36)])].concat(),
        Format::Q4_0 => {
            [run(|row| [&rows[row][2..18], &rows[row][20..36]]), each(&[(0, 2), (18, 20)])].concat()
        }
        Format::Q5_0 => {
            let codes = run(|row| [&rows[row][6..22], &rows[row][28..44]]);
            [codes, fifth_bits(rows), each(&[(0, 2), (22, 24)])].concat()
        }
        _ => Vec::new(),
    }
}

#[test]
pub(super) fn repacked_weights_lie_as_described_and_come_back() {
    let mut random = Random(13);
    for format in TILED {
        let kernels = tiles(format);
        let n_cols = 3 * kernels.columns;
        let part = format.row_bytes(kernels.columns as u64).unwrap() as usize;
        let bytes = random_rows(&mut random, format, 3 * STRIP_ROWS, n_cols);
        let mut expected = Vec::new();
        for strip in bytes.chunks_exact(STRIP_ROWS * 3 * part) {
            for column in 0..3 {
                let rows: Vec<&[u8]> =
                    strip.chunks_exact(3 * part).map(|row| &row[column * part..][..part]).collect();
                expected.extend(tile(format, &rows));
            }
        }
        let mut found = vec![0; bytes.len()];
        moved(format, kernels.repack, n_cols, &bytes).download(0, &mut found).unwrap();
        let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert!(found.len() == expected.len() && wrong.is_none(), "{format}: byte {wrong:?} of the tiles");
        let mut back = vec![0; bytes.len()];
        moved(format, kernels.unpack, n_cols, &found).download(0, &mut back).unwrap();
        assert!(back == bytes, "{format}: unpacked bytes differ");
    }
}
