//! What is written can be read, and is the same.
#![allow(clippy::unwrap_used)]

use std::io::{self, Write};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use worker_orcd::gguf::{
    Gguf, GgufError, GgufWriter, KeyFault, MetadataArray, MetadataError, MetadataValue, TensorFault,
    TensorInfo,
};
use worker_orcd::quant::{FORMATS, Format};

fn scalar() -> impl Strategy<Value = MetadataValue> {
    use MetadataValue::*;
    prop_oneof![
        any::<u8>().prop_map(U8),
        any::<i8>().prop_map(I8),
        any::<u16>().prop_map(U16),
        any::<i16>().prop_map(I16),
        any::<u32>().prop_map(U32),
        any::<i32>().prop_map(I32),
        any::<u64>().prop_map(U64),
        any::<i64>().prop_map(I64),
        any::<f32>().prop_map(F32),
        any::<f64>().prop_map(F64),
        any::<bool>().prop_map(Bool),
        any::<std::string::String>().prop_map(String),
    ]
}

fn array() -> impl Strategy<Value = MetadataValue> {
    use MetadataArray::*;
    let lists = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(U8),
        vec(any::<i8>(), 0..9).prop_map(I8),
        vec(any::<u16>(), 0..9).prop_map(U16),
        vec(any::<i16>(), 0..9).prop_map(I16),
        vec(any::<u32>(), 0..9).prop_map(U32),
        vec(any::<i32>(), 0..9).prop_map(I32),
        vec(any::<u64>(), 0..9).prop_map(U64),
        vec(any::<i64>(), 0..9).prop_map(I64),
        vec(any::<f32>(), 0..9).prop_map(F32),
        vec(any::<f64>(), 0..9).prop_map(F64),
        vec(any::<bool>(), 0..9).prop_map(Bool),
        vec(any::<std::string::String>(), 0..9).prop_map(String),
    ];
    lists.prop_map(MetadataValue::Array)
}

/// Blocks of a row, the other dimensions, the format. A dimension may be 0.
fn shape() -> impl Strategy<Value = (Vec<u64>, Format)> {
    (0..3_u64, vec(0..4_u64, 0..4), 0..FORMATS.len()).prop_map(|(blocks, rest, format)| {
        let format = FORMATS[format].format;
        let mut dims = vec![blocks * format.block_elements() as u64];
        dims.extend(rest);
        (dims, format)
    })
}

fn writer() -> impl Strategy<Value = GgufWriter> {
    let metadata = btree_map("[^\u{0}]{1,12}", prop_oneof![scalar(), array()], 0..8);
    let tensors = btree_map("[a-z.é]{0,20}", shape(), 0..6);
    (metadata, tensors, prop::option::of(0..9_u32)).prop_map(|(metadata, tensors, alignment)| {
        let mut writer = GgufWriter::new();
        metadata.into_iter().for_each(|(key, value)| _ = writer.set(key, value));
        if let Some(power) = alignment {
            writer.set("general.alignment", MetadataValue::U32(1 << power));
        }
        for (name, (dims, format)) in tensors {
            writer.add_tensor(name, &dims, format).unwrap();
        }
        writer
    })
}

/// Bytes that differ from tensor to tensor.
fn content(index: usize, tensor: &TensorInfo) -> Vec<u8> {
    (0..tensor.n_bytes).map(|at| (at * 7 + index as u64 * 31) as u8).collect()
}

fn write(writer: &GgufWriter) -> Vec<u8> {
    let mut bytes = Vec::new();
    // In odd pieces, as a caller with a small buffer would.
    let fill = |index, tensor: &TensorInfo, sink: &mut dyn Write| {
        content(index, tensor).chunks(13).try_for_each(|piece| sink.write_all(piece))
    };
    let n_bytes = writer.write(&mut bytes, fill).unwrap();
    assert_eq!(n_bytes, bytes.len() as u64);
    bytes
}

proptest! {
    #[test]
    fn a_written_file_reads_equal(writer in writer()) {
        let bytes = write(&writer);
        let layout = writer.layout().unwrap();
        let model = Gguf::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(model.version(), 3);
        prop_assert_eq!(model.file_bytes(), layout.file_bytes);
        prop_assert!(model.metadata().iter().eq(writer.metadata().iter()));
        prop_assert_eq!(model.tensors(), &layout.tensors[..]);
        for (index, tensor) in model.tensors().iter().enumerate() {
            let expected = content(index, tensor);
            prop_assert_eq!(model.data(tensor), &expected[..]);
            let mut tail = vec![0; expected.len() / 2];
            model.read_at(tensor, tensor.n_bytes - tail.len() as u64, &mut tail).unwrap();
            prop_assert_eq!(&tail[..], &expected[expected.len() - tail.len()..]);
        }
        prop_assert_eq!(write(&GgufWriter::from_gguf(&model).unwrap()), bytes);
    }

    #[test]
    fn a_cut_file_is_never_read_past_its_end(writer in writer(), cut in any::<prop::sample::Index>()) {
        let bytes = write(&writer);
        let end = cut.index(bytes.len());
        if let Ok(model) = Gguf::from_bytes(bytes[..end].to_vec()) {
            for tensor in model.tensors() {
                prop_assert!(tensor.file_offset() + tensor.n_bytes <= end as u64);
            }
        }
    }

    #[test]
    fn any_bytes_after_the_magic_are_no_panic(tail in vec(any::<u8>(), 0..200)) {
        let _ = Gguf::from_bytes([b"GGUF\x03\x00\x00\x00", &tail[..]].concat());
    }
}

#[test]
fn a_nan_keeps_its_bits() {
    let bits = 0x7fa0_1234;
    let mut writer = GgufWriter::new();
    writer.set("nan", MetadataValue::F32(f32::from_bits(bits)));
    let model = Gguf::from_bytes(write(&writer)).unwrap();
    assert_eq!(model.metadata().f32("nan").unwrap().map(f32::to_bits), Some(bits));
}

#[test]
fn the_layout_is_where_the_writer_puts_things() {
    let mut writer = GgufWriter::new();
    writer.set("general.alignment", MetadataValue::U32(64));
    writer.add_tensor("first", &[3], Format::F32).unwrap();
    writer.add_tensor("none", &[3, 0], Format::F32).unwrap();
    writer.add_tensor("second", &[32], Format::Q8_0).unwrap();
    let layout = writer.layout().unwrap();

    // A writer that puts the pieces into place itself makes the same file.
    let mut placed = vec![0; layout.file_bytes as usize];
    placed[..layout.header.len()].copy_from_slice(&layout.header);
    for (index, tensor) in layout.tensors.iter().enumerate() {
        assert_eq!(tensor.file_offset() % 64, 0);
        let at = tensor.file_offset() as usize;
        placed[at..at + tensor.n_bytes as usize].copy_from_slice(&content(index, tensor));
    }
    assert_eq!(placed, write(&writer));
    assert_eq!(layout.file_bytes % 64, 0);
}

#[test]
fn metadata_can_be_edited_and_the_tensors_stay() {
    let mut writer = GgufWriter::new();
    for key in ["a", "b", "c", "d"] {
        writer.set(key, MetadataValue::String(key.repeat(50)));
    }
    writer.add_tensor("t", &[256, 3], Format::Q4_K).unwrap();
    let model = Gguf::from_bytes(write(&writer)).unwrap();

    let mut editor = GgufWriter::from_gguf(&model).unwrap();
    editor.metadata_mut().remove("b").unwrap();
    assert_eq!(editor.metadata_mut().remove("b"), None);
    editor.set("c", MetadataValue::U8(7)).set("e", MetadataValue::Bool(true));
    let mut bytes = Vec::new();
    let copy = |index: usize, _: &TensorInfo, sink: &mut dyn Write| {
        sink.write_all(model.data(&model.tensors()[index]))
    };
    editor.write(&mut bytes, copy).unwrap();

    let edited = Gguf::from_bytes(bytes).unwrap();
    let keys: Vec<_> = edited.metadata().iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "c", "d", "e"]);
    assert_eq!(edited.metadata().u32("c").unwrap(), Some(7));
    assert_eq!(edited.metadata().str("d").unwrap(), Some("d".repeat(50).as_str()));
    assert_eq!(edited.data(&edited.tensors()[0]), model.data(&model.tensors()[0]));
}

mod writer_refuses {
    use super::*;

    fn tensor_fault(error: GgufError) -> TensorFault {
        match error {
            GgufError::Tensor { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_reader_would_refuse() {
        let mut writer = GgufWriter::new();
        writer.add_tensor("t", &[4], Format::F32).unwrap();
        let mut add = |name: &str, dims: &[u64], format| writer.add_tensor(name, dims, format).unwrap_err();
        assert_eq!(tensor_fault(add("t", &[4], Format::F32)), TensorFault::DuplicateName);
        assert_eq!(tensor_fault(add("u", &[1; 5], Format::F32)), TensorFault::DimensionCount { found: 5 });
        assert_eq!(
            tensor_fault(add("u", &[48], Format::Q4_0)),
            TensorFault::RaggedRow { n_cols: 48, format: Format::Q4_0 }
        );
        assert!(matches!(tensor_fault(add("u", &[1 << 62], Format::F32)), TensorFault::TooManyBytes { .. }));
        assert!(matches!(
            tensor_fault(add("u", &[1 << 32, 1 << 31], Format::F32)),
            TensorFault::TooManyElements { .. }
        ));
        assert!(matches!(
            add(&"n".repeat(64), &[4], Format::F32),
            GgufError::Limit { found: 64, limit: 63, .. }
        ));
    }

    #[test]
    fn keys_and_alignments_the_reader_would_refuse() {
        let layout = |key: &str, value| GgufWriter::new().set(key, value).layout();
        let empty = layout("", MetadataValue::U8(1)).unwrap_err();
        assert!(matches!(empty, GgufError::Key { fault: KeyFault::Empty, .. }));
        let long = layout(&"k".repeat(65_536), MetadataValue::U8(1)).unwrap_err();
        assert!(matches!(long, GgufError::Limit { found: 65_536, limit: 65_535, .. }));
        let uneven = layout("general.alignment", MetadataValue::U32(48)).unwrap_err();
        assert!(matches!(uneven, GgufError::Metadata(MetadataError::OutOfRange { .. })));
    }

    #[test]
    fn tensors_whose_sum_does_not_count() {
        let mut writer = GgufWriter::new();
        for name in ["a", "b"] {
            writer.add_tensor(name, &[(1 << 61) - 32, 2], Format::F16).unwrap();
        }
        writer.add_tensor("c", &[32], Format::F16).unwrap();
        writer.add_tensor("d", &[(1 << 61) - 32], Format::F32).unwrap();
        let error = writer.layout().unwrap_err();
        assert!(
            matches!(error, GgufError::Tensor { fault: TensorFault::TooManyBytes { .. }, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn data_of_another_length() {
        let mut writer = GgufWriter::new();
        writer.add_tensor("t", &[4], Format::F32).unwrap();
        for found in [0_u64, 15, 17] {
            let fill = |_, _: &TensorInfo, sink: &mut dyn Write| sink.write_all(&vec![1; found as usize]);
            let error = writer.write(&mut Vec::new(), fill).unwrap_err();
            assert_eq!(error.to_string(), format!("tensor `t`: {found} bytes were written, expected 16"));
        }
    }

    #[test]
    fn a_sink_that_is_full_names_the_tensor() {
        let mut writer = GgufWriter::new();
        writer.add_tensor("first", &[4], Format::F32).unwrap();
        writer.add_tensor("second", &[4], Format::F32).unwrap();
        let fill = |index, tensor: &TensorInfo, sink: &mut dyn Write| sink.write_all(&content(index, tensor));
        let layout = writer.layout().unwrap();
        let messages: Vec<_> = (0..layout.file_bytes)
            .map(|room| {
                let mut disk = vec![0; room as usize];
                writer.write(&mut io::Cursor::new(&mut disk[..]), fill).unwrap_err().to_string()
            })
            .collect();
        assert!(messages[0].starts_with("cannot write header: "), "{}", messages[0]);
        let second = layout.tensors[1].file_offset() as usize;
        assert!(messages[second].starts_with("cannot write tensor `second`: "), "{}", messages[second]);
        let last = messages.last().unwrap();
        assert!(last.starts_with("cannot write end of the file: "), "{last}");
    }
}
