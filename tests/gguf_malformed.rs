//! One test for each hand-made file: what is refused, with the very words, and what must load.
//!
//! The names follow `tests/test-gguf.cpp` of llama.cpp; cases that it does not have stand beside those it has.
#![allow(clippy::unwrap_used)]

use worker_orcd::gguf::{
    Gguf, GgufError, KeyFault, MetadataArray, MetadataError, MetadataValue, Place, SplitFault, TensorFault,
};
use worker_orcd::quant::Format;

#[path = "common/gguf_cases.rs"]
mod cases;
#[path = "common/gguf_raw.rs"]
mod raw;

fn read(case: &str) -> Result<Gguf, GgufError> {
    let found = cases::cases().into_iter().find(|(name, _)| *name == case);
    Gguf::from_bytes(found.unwrap_or_else(|| panic!("there is no case {case}")).1)
}

/// Tests of one group of cases. `bad_magic_is_rejected` in group `header` reads the case `header_bad_magic`.
macro_rules! group {
    (
        $group:ident
        rejected { $($rejected:ident: $pattern:pat => $message:expr;)* }
        accepted { $($accepted:ident: $check:expr;)* }
    ) => {
        mod $group {
            use super::*;

            pub(crate) const CASES: &[&str] = &[
                $(concat!(stringify!($group), "_", stringify!($rejected)),)*
                $(concat!(stringify!($group), "_", stringify!($accepted)),)*
            ];
            fn case(test: &str) -> &str {
                test.trim_end_matches("_is_rejected").trim_end_matches("_is_accepted")
            }
            $(#[test]
            fn $rejected() {
                let error = read(case(concat!(stringify!($group), "_", stringify!($rejected)))).unwrap_err();
                assert!(matches!(error, $pattern), "{error:?}");
                assert_eq!(error.to_string(), $message);
            })*
            $(#[test]
            fn $accepted() {
                let model = read(case(concat!(stringify!($group), "_", stringify!($accepted)))).unwrap();
                let check: fn(&Gguf) = $check;
                check(&model);
            })*
            #[test]
            fn every_case_has_a_test() {
                let prefix = concat!(stringify!($group), "_");
                let mut written: Vec<_> = cases::cases().into_iter().map(|(name, _)| name).collect();
                written.retain(|name| name.starts_with(prefix));
                let mut tested: Vec<_> = CASES.iter().map(|test| case(test)).collect();
                written.sort_unstable();
                tested.sort_unstable();
                assert_eq!(written, tested);
            }
        }
    };
}

group! {
    header
    rejected {
        bad_magic_is_rejected: GgufError::NotGguf { found: [b'F', b'U', b'G', b'G'] } =>
            "not a GGUF file: it starts with \"FUGG\", expected \"GGUF\"";
        bad_version_0_is_rejected: GgufError::Version { found: 0 } =>
            "GGUF version 0 is not supported, expected 2 or 3; convert the model to one of these";
        bad_version_1_is_rejected: GgufError::Version { found: 1 } =>
            "GGUF version 1 is not supported, expected 2 or 3; convert the model to one of these";
        bad_version_future_is_rejected: GgufError::Version { found: 4 } =>
            "GGUF version 4 is not supported, expected 2 or 3; convert the model to one of these";
        big_endian_is_rejected: GgufError::BigEndian { version: 3 } =>
            "this is a big-endian GGUF file (version 3), expected little-endian; convert the model anew";
        bad_n_tensors_is_rejected: GgufError::Limit { place: Place::Header, found: u64::MAX, limit: 65_536, .. } =>
            "header: tensor count is 18446744073709551615, the limit is 65536";
        bad_n_kv_is_rejected: GgufError::Limit { place: Place::Header, found: u64::MAX, limit: 65_536, .. } =>
            "header: metadata entry count is 18446744073709551615, the limit is 65536";
        n_tensors_past_end_is_rejected: GgufError::Truncated { place: Place::Header, available: 190, .. } =>
            "header: tensor table at offset 710 needs 1440000 bytes, the file has 190 left";
        n_kv_past_end_is_rejected: GgufError::Truncated { place: Place::Header, available: 876, .. } =>
            "header: metadata at offset 24 needs 840000 bytes, the file has 876 left";
        nothing_is_rejected: GgufError::Truncated { place: Place::Header, wanted: 4, available: 0, .. } =>
            "header: magic at offset 0 needs 4 bytes, the file has 0 left";
    }
    accepted {
        version_2_is_accepted: |model| {
            assert_eq!(model.version(), 2);
            has_the_good_tensors(model);
        };
        empty_is_accepted: |model| {
            assert!(model.metadata().is_empty() && model.tensors().is_empty());
            assert_eq!((model.version(), model.alignment(), model.file_bytes()), (3, 32, 24));
        };
    }
}

group! {
    kv
    rejected {
        bad_key_size_is_rejected: GgufError::Limit { place: Place::Entry(0), .. } =>
            "metadata entry 0: key length is 18446744073709551615, the limit is 65535";
        empty_key_is_rejected: GgufError::Key { place: Place::Entry(0), fault: KeyFault::Empty } =>
            "metadata entry 0: the key is empty";
        bad_type_is_rejected: GgufError::Key { fault: KeyFault::UnknownType { id: 13 }, .. } =>
            "metadata key `key`: value type 13 is unknown, expected 0 to 12";
        duplicate_key_is_rejected: GgufError::Key { fault: KeyFault::Duplicate, .. } =>
            "metadata key `twice`: the key occurs twice";
        bad_align_is_rejected: GgufError::Metadata(MetadataError::OutOfRange { .. }) =>
            "metadata key `general.alignment` is 13, expected a power of two";
        zero_align_is_rejected: GgufError::Metadata(MetadataError::OutOfRange { .. }) =>
            "metadata key `general.alignment` is 0, expected a power of two";
        wrong_type_align_is_rejected: GgufError::Metadata(MetadataError::WrongType { .. }) =>
            "metadata key `general.alignment` holds an i32, expected a u32";
        invalid_utf8_key_is_rejected: GgufError::InvalidUtf8 { place: Place::Entry(0), offset: 34, .. } =>
            "metadata entry 0: key is not valid UTF-8 at offset 34";
        shard_as_bytes_is_rejected: GgufError::Split { fault: SplitFault::OnlyBytes { count: 2 } } =>
            "split model: one shard of 2 was given as bytes; open the model by its path";
    }
    accepted {
        success_is_accepted: |model| has_every_type(model);
    }
}

group! {
    value
    rejected {
        string_size_max_is_rejected: GgufError::Limit { place: Place::Value(_), .. } =>
            "metadata key `key`: string length is 18446744073709551615, the limit is 67108864";
        string_size_past_end_is_rejected: GgufError::Truncated { wanted: 5, available: 4, .. } =>
            "metadata key `key`: string at offset 47 needs 5 bytes, the file has 4 left";
        array_size_max_is_rejected: GgufError::Limit { place: Place::Value(_), .. } =>
            "metadata key `list`: array length is 18446744073709551615, the limit is 8388608";
        array_size_wraps_is_rejected: GgufError::Limit { place: Place::Value(_), .. } =>
            "metadata key `list`: array length is 2305843009213693953, the limit is 8388608";
        array_past_end_is_rejected: GgufError::Truncated { wanted: 20, available: 16, .. } =>
            "metadata key `list`: array at offset 52 needs 20 bytes, the file has 16 left";
        strings_past_end_is_rejected: GgufError::Truncated { wanted: 64_000_000, available: 16, .. } =>
            "metadata key `list`: array of strings at offset 52 needs 64000000 bytes, the file has 16 left";
        string_in_array_past_end_is_rejected: GgufError::Truncated { wanted: 9, available: 8, .. } =>
            "metadata key `list`: string of an array at offset 69 needs 9 bytes, the file has 8 left";
        array_unknown_type_is_rejected: GgufError::Key { fault: KeyFault::UnknownType { id: 13 }, .. } =>
            "metadata key `list`: value type 13 is unknown, expected 0 to 12";
        array_nested_is_rejected: GgufError::Key { fault: KeyFault::NestedArray, .. } =>
            "metadata key `list`: it holds an array of arrays, which is not supported";
        bad_bool_is_rejected: GgufError::Key { fault: KeyFault::BadBool { found: 2 }, .. } =>
            "metadata key `flag`: a bool is stored as 2, expected 0 or 1";
        bad_bool_in_array_is_rejected: GgufError::Key { fault: KeyFault::BadBool { found: 255 }, .. } =>
            "metadata key `list`: a bool is stored as 255, expected 0 or 1";
        invalid_utf8_is_rejected: GgufError::InvalidUtf8 { place: Place::Value(_), offset: 49, .. } =>
            "metadata key `key`: string is not valid UTF-8 at offset 49";
        invalid_utf8_in_array_is_rejected: GgufError::InvalidUtf8 { place: Place::Value(_), offset: 72, .. } =>
            "metadata key `list`: string of an array is not valid UTF-8 at offset 72";
    }
    accepted {}
}

group! {
    tensors
    rejected {
        bad_name_size_is_rejected: GgufError::Limit { place: Place::TensorEntry(0), found: 64, limit: 63, .. } =>
            "tensor table entry 0: name length is 64, the limit is 63";
        invalid_utf8_name_is_rejected: GgufError::InvalidUtf8 { place: Place::TensorEntry(0), offset: 32, .. } =>
            "tensor table entry 0: name is not valid UTF-8 at offset 32";
        duplicate_name_is_rejected: GgufError::Tensor { fault: TensorFault::DuplicateName, .. } =>
            "tensor `twice`: the name occurs twice";
        bad_n_dims_is_rejected: GgufError::Tensor { fault: TensorFault::DimensionCount { found: 5 }, .. } =>
            "tensor `t`: it has 5 dimensions, expected at most 4";
        bad_type_is_rejected: GgufError::Tensor { fault: TensorFault::UnknownFormat { id: 42 }, .. } =>
            format!("tensor `t`: its type 42 is unknown, expected one of {}", formats());
        unsupported_type_is_rejected: GgufError::Tensor { fault: TensorFault::UnsupportedFormat { id: 39, .. }, .. } =>
            format!(
                "tensor `t`: it is stored as MXFP4 (type 39), expected one of {}; quantize the model to one of these",
                formats()
            );
        bad_offset_is_rejected: GgufError::Tensor { fault: TensorFault::PastEnd { offset: u64::MAX, .. }, .. } =>
            "tensor `t`: its 16 bytes at data offset 18446744073709551615 pass the end of the data section, \
             which has 64 bytes";
        bad_align_is_rejected: GgufError::Metadata(MetadataError::OutOfRange { .. }) =>
            "metadata key `general.alignment` is 13, expected a power of two";
        inconsistent_align_is_rejected: GgufError::Tensor { fault: TensorFault::Misaligned { .. }, .. } =>
            "tensor `t1`: its data offset 20 is not a multiple of the alignment 32";
        bad_shape_is_rejected: GgufError::Tensor { fault: TensorFault::TooManyElements { .. }, .. } =>
            "tensor `t`: its shape [18446744073709551615] has too many elements, expected a product below 2^63";
        ne_too_big_is_rejected: GgufError::Tensor { fault: TensorFault::TooManyElements { .. }, .. } =>
            "tensor `t`: its shape [8589934588, 8589934588] has too many elements, expected a product below 2^63";
        zero_dim_hides_overflow_is_rejected: GgufError::Tensor { fault: TensorFault::TooManyElements { .. }, .. } =>
            "tensor `t`: its shape [0, 8589934588, 8589934588] has too many elements, expected a product below 2^63";
        zero_dim_past_end_is_rejected: GgufError::Tensor { fault: TensorFault::PastEnd { n_bytes: 0, .. }, .. } =>
            "tensor `t`: its 0 bytes at data offset 96 pass the end of the data section, which has 64 bytes";
        nbytes_too_big_is_rejected: GgufError::Tensor { fault: TensorFault::TooManyBytes { .. }, .. } =>
            "tensor `t`: its shape [2147483648, 2147483648] in F32 has more bytes than 64 bits can count";
        nbytes_pad_wrap_is_rejected: GgufError::Tensor { fault: TensorFault::PastEnd { .. }, .. } =>
            "tensor `t`: its 18446744073709551600 bytes at data offset 0 pass the end of the data section, \
             which has 64 bytes";
        ragged_row_is_rejected: GgufError::Tensor { fault: TensorFault::RaggedRow { n_cols: 33, .. }, .. } =>
            "tensor `t`: its rows have 33 elements, expected a multiple of 32 for Q8_0";
    }
    accepted {
        success_is_accepted: |model| {
            has_every_type(model);
            has_the_good_tensors(model);
        };
        custom_align_is_accepted: |model| has_three(model, 1);
        longest_name_is_accepted: |model| assert_eq!(model.tensors()[0].name.len(), 63);
        scalar_is_accepted: |model| {
            let scalar = &model.tensors()[0];
            assert!(scalar.dims.is_empty());
            assert_eq!((scalar.n_cols(), scalar.n_rows(), scalar.n_elements(), scalar.n_bytes), (1, 1, 1, 4));
        };
        zero_dim_is_accepted: |model| {
            let empty = &model.tensors()[0];
            assert_eq!((empty.n_cols(), empty.n_rows(), empty.n_elements(), empty.n_bytes), (4, 0, 0, 0));
            assert!(model.data(empty).is_empty());
            model.read_at(empty, 0, &mut []).unwrap();
        };
    }
}

group! {
    data
    rejected {
        not_enough_data_is_rejected: GgufError::Tensor { fault: TensorFault::PastEnd { available: 99, .. }, .. } =>
            "tensor `b`: its 68 bytes at data offset 32 pass the end of the data section, which has 99 bytes";
        bad_align_is_rejected: GgufError::Metadata(MetadataError::OutOfRange { .. }) =>
            "metadata key `general.alignment` is 13, expected a power of two";
        inconsistent_align_is_rejected: GgufError::Tensor { fault: TensorFault::Misaligned { .. }, .. } =>
            "tensor `t1`: its data offset 20 is not a multiple of the alignment 32";
        mem_size_overflow_is_rejected: GgufError::Tensor { fault: TensorFault::PastEnd { .. }, .. } =>
            "tensor `x`: its 9223372036854775744 bytes at data offset 0 pass the end of the data section, \
             which has 32 bytes";
        header_not_padded_is_rejected: GgufError::Truncated { place: Place::Header, wanted: 7, available: 0, .. } =>
            "header: padding before the tensor data at offset 57 needs 7 bytes, the file has 0 left";
        padding_past_end_is_rejected: GgufError::Truncated { place: Place::Header, available: 60, .. } =>
            "header: padding before the tensor data at offset 159 needs 2147483489 bytes, the file has 60 left";
        overlap_is_rejected: GgufError::Tensor { fault: TensorFault::Overlap { .. }, .. } =>
            "tensor `second`: its data at offset 32 lies inside tensor `first`, which ends at 64";
        same_offset_is_rejected: GgufError::Tensor { fault: TensorFault::Overlap { .. }, .. } =>
            "tensor `second`: its data at offset 0 lies inside tensor `first`, which ends at 64";
        overlap_inside_is_rejected: GgufError::Tensor { fault: TensorFault::Overlap { .. }, .. } =>
            "tensor `x`: its data at offset 64 lies inside tensor `y`, which ends at 128";
    }
    accepted {
        success_is_accepted: |model| has_three(model, 32);
        custom_align_is_accepted: |model| has_three(model, 128);
        hole_is_accepted: |model| {
            assert_eq!(model.data(&model.tensors()[1]), &raw::pattern(112)[96..]);
        };
        extra_bytes_is_accepted: |model| has_the_good_tensors(model);
    }
}

fn formats() -> &'static str {
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K, IQ4_NL, IQ4_XS"
}

fn has_the_good_tensors(model: &Gguf) {
    let [a, b] = model.tensors() else { panic!("{:?}", model.tensors()) };
    assert_eq!((a.name.as_str(), &a.dims[..], a.format, a.n_bytes), ("a", &[4][..], Format::F32, 16));
    assert_eq!((b.name.as_str(), &b.dims[..], b.format, b.n_bytes), ("b", &[32, 2][..], Format::Q8_0, 68));
    assert_eq!((b.n_cols(), b.n_rows(), b.n_elements()), (32, 2, 64));
    let data = raw::pattern(100);
    assert_eq!((model.data(a), model.data(b)), (&data[..16], &data[32..]));
}

fn has_three(model: &Gguf, alignment: u64) {
    assert_eq!(model.alignment(), alignment);
    assert_eq!(model.tensors().len(), 3);
    let (step, data) = (20_usize.next_multiple_of(alignment as usize), raw::pattern(1000));
    for (at, tensor) in model.tensors().iter().enumerate() {
        assert_eq!(tensor.name, format!("t{at}"));
        assert_eq!(model.data(tensor), &data[at * step..at * step + 20]);
    }
}

fn has_every_type(model: &Gguf) {
    use MetadataArray as List;
    use MetadataValue::*;
    let expected = [
        ("u8", U8(200)),
        ("i8", I8(-100)),
        ("u16", U16(60_000)),
        ("i16", I16(-30_000)),
        ("u32", U32(4_000_000_000)),
        ("i32", I32(-2_000_000_000)),
        ("f32", F32(1.5)),
        ("bool", Bool(true)),
        ("string", String("grüße".to_owned())),
        ("u64", U64(1 << 63)),
        ("i64", I64(i64::MIN)),
        ("f64", F64(-0.1)),
        ("u8s", Array(List::U8(vec![1, 2, 3]))),
        ("i8s", Array(List::I8(vec![-1, 1]))),
        ("u16s", Array(List::U16(vec![513]))),
        ("i16s", Array(List::I16(vec![-2]))),
        ("u32s", Array(List::U32(vec![1, 1 << 31]))),
        ("i32s", Array(List::I32(vec![-1]))),
        ("f32s", Array(List::F32(vec![0.25]))),
        ("bools", Array(List::Bool(vec![false, true, false]))),
        ("strings", Array(List::String(["a", "", "bc"].map(str::to_owned).to_vec()))),
        ("u64s", Array(List::U64(vec![7]))),
        ("i64s", Array(List::I64(vec![-7]))),
        ("f64s", Array(List::F64(vec![2.5]))),
        ("empty", Array(List::U32(vec![]))),
    ];
    let found: Vec<_> = model.metadata().iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(found, expected);
}

mod truncation {
    use super::*;

    #[test]
    fn every_prefix_of_a_file_is_rejected() {
        let whole = cases::good().bytes();
        for end in 0..whole.len() {
            let error = Gguf::from_bytes(whole[..end].to_vec()).unwrap_err();
            let cut = matches!(
                error,
                GgufError::Truncated { .. } | GgufError::Tensor { fault: TensorFault::PastEnd { .. }, .. }
            );
            assert!(cut, "{end} bytes of {}: {error:?}", whole.len());
        }
    }

    #[test]
    fn padding_after_the_last_tensor_may_be_missing() {
        let padded = raw::Raw::default().tensor("t", &[5], raw::F32, 0).data(32).bytes();
        for end in padded.len() - 12..padded.len() {
            assert_eq!(Gguf::from_bytes(padded[..end].to_vec()).unwrap().tensors()[0].n_bytes, 20);
        }
    }
}
