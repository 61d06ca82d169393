//! Every hand-made file, by name: the ones that must be refused and the ones that must load. `gguf_malformed.rs` says
//! what is expected of each; the fuzz corpus holds a copy of each.

use crate::raw::{F16, F32, Q8_0, Raw, array, entry, kind, string, tensor};

/// A file with one value of every type, an array of every type, and two tensors: `a` F32 of 4 and `b` Q8_0 of 32 x 2.
pub(crate) fn good() -> Raw {
    every_type(Raw::default()).tensor("a", &[4], F32, 0).tensor("b", &[32, 2], Q8_0, 32).data(32 + 68)
}

fn every_type(raw: Raw) -> Raw {
    let numbers = |bytes: &[&[u8]]| bytes.concat();
    raw.entry("u8", kind::U8, &[200])
        .entry("i8", kind::I8, &(-100_i8).to_le_bytes())
        .entry("u16", kind::U16, &60_000_u16.to_le_bytes())
        .entry("i16", kind::I16, &(-30_000_i16).to_le_bytes())
        .entry("u32", kind::U32, &4_000_000_000_u32.to_le_bytes())
        .entry("i32", kind::I32, &(-2_000_000_000_i32).to_le_bytes())
        .entry("f32", kind::F32, &1.5_f32.to_le_bytes())
        .entry("bool", kind::BOOL, &[1])
        .entry("string", kind::STRING, &string("grüße".as_bytes()))
        .entry("u64", kind::U64, &(1_u64 << 63).to_le_bytes())
        .entry("i64", kind::I64, &i64::MIN.to_le_bytes())
        .entry("f64", kind::F64, &(-0.1_f64).to_le_bytes())
        .entry("u8s", kind::ARRAY, &array(kind::U8, 3, &[1, 2, 3]))
        .entry("i8s", kind::ARRAY, &array(kind::I8, 2, &[255, 1]))
        .entry("u16s", kind::ARRAY, &array(kind::U16, 1, &[1, 2]))
        .entry("i16s", kind::ARRAY, &array(kind::I16, 1, &[254, 255]))
        .entry("u32s", kind::ARRAY, &array(kind::U32, 2, &numbers(&[&[1, 0, 0, 0], &[0, 0, 0, 128]])))
        .entry("i32s", kind::ARRAY, &array(kind::I32, 1, &[255; 4]))
        .entry("f32s", kind::ARRAY, &array(kind::F32, 1, &0.25_f32.to_le_bytes()))
        .entry("bools", kind::ARRAY, &array(kind::BOOL, 3, &[0, 1, 0]))
        .entry(
            "strings",
            kind::ARRAY,
            &array(kind::STRING, 3, &[string(b"a"), string(b""), string(b"bc")].concat()),
        )
        .entry("u64s", kind::ARRAY, &array(kind::U64, 1, &7_u64.to_le_bytes()))
        .entry("i64s", kind::ARRAY, &array(kind::I64, 1, &(-7_i64).to_le_bytes()))
        .entry("f64s", kind::ARRAY, &array(kind::F64, 1, &2.5_f64.to_le_bytes()))
        .entry("empty", kind::ARRAY, &array(kind::U32, 0, &[]))
}

/// A file with one metadata entry.
fn one(key: &[u8], kind: u32, payload: &[u8]) -> Raw {
    Raw { entries: vec![entry(key, kind, payload)], ..Raw::default() }
}

/// A file with one tensor and 64 bytes of data.
fn lone(name: &str, dims: &[u64], type_id: u32, offset: u64) -> Raw {
    Raw::default().tensor(name, dims, type_id, offset).data(64)
}

/// Three tensors of `type_id`, as if the alignment were `alignment`.
fn three(raw: Raw, alignment: u64) -> Raw {
    let n_bytes = 20_u64.next_multiple_of(alignment);
    (0..3)
        .fold(raw, |raw, at| raw.tensor(&format!("t{at}"), &[5], F32, at * n_bytes))
        .data(3 * n_bytes as usize)
}

fn without_last(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.pop();
    bytes
}

/// Name and bytes of every case.
pub(crate) fn cases() -> Vec<(&'static str, Vec<u8>)> {
    [header_cases(), metadata_cases(), value_cases(), tensor_cases(), shape_cases(), data_cases()].concat()
}

fn header_cases() -> Vec<(&'static str, Vec<u8>)> {
    let version = |version| Raw { version, ..good() }.bytes();
    vec![
        ("header_bad_magic", Raw { magic: *b"FUGG", ..good() }.bytes()),
        ("header_bad_version_0", version(0)),
        ("header_bad_version_1", version(1)),
        ("header_bad_version_future", version(4)),
        ("header_big_endian", version(3_u32.swap_bytes())),
        ("header_version_2", version(2)),
        ("header_bad_n_tensors", Raw { n_tensors: Some(u64::MAX), ..good() }.bytes()),
        ("header_bad_n_kv", Raw { n_entries: Some(u64::MAX), ..good() }.bytes()),
        ("header_n_tensors_past_end", Raw { n_tensors: Some(60_000), ..good() }.bytes()),
        ("header_n_kv_past_end", Raw { n_entries: Some(60_000), ..good() }.bytes()),
        ("header_empty", Raw::default().bytes()),
        ("header_nothing", Vec::new()),
    ]
}

fn metadata_cases() -> Vec<(&'static str, Vec<u8>)> {
    let long_key = Raw {
        entries: vec![u64::MAX.to_le_bytes().to_vec(), vec![0; 16]],
        n_entries: Some(1),
        ..Raw::default()
    };
    let twice = Raw::default().entry("twice", kind::U8, &[1]).entry("twice", kind::U8, &[2]);
    let alignment = |kind, value: u32| one(b"general.alignment", kind, &value.to_le_bytes()).bytes();
    let shard = good().entry("split.no", kind::U16, &[0, 0]).entry("split.count", kind::U16, &[2, 0]);
    vec![
        ("kv_bad_key_size", long_key.bytes()),
        ("kv_empty_key", one(b"", kind::U32, &[0; 4]).bytes()),
        ("kv_bad_type", one(b"key", kind::COUNT, &[0]).bytes()),
        ("kv_duplicate_key", twice.bytes()),
        ("kv_bad_align", alignment(kind::U32, 13)),
        ("kv_zero_align", alignment(kind::U32, 0)),
        ("kv_wrong_type_align", alignment(kind::I32, 32)),
        ("kv_invalid_utf8_key", one(b"ke\xffy", kind::U8, &[1]).bytes()),
        ("kv_success", every_type(Raw::default()).bytes()),
        ("kv_shard_as_bytes", shard.bytes()),
    ]
}

fn value_cases() -> Vec<(&'static str, Vec<u8>)> {
    let length =
        |length: u64| one(b"key", kind::STRING, &[&length.to_le_bytes()[..], b"text"].concat()).bytes();
    let list =
        |kind, count, elements: &[u8]| one(b"list", kind::ARRAY, &array(kind, count, elements)).bytes();
    vec![
        ("value_string_size_max", length(u64::MAX)),
        ("value_string_size_past_end", length(5)),
        ("value_array_size_max", list(kind::U32, u64::MAX, &[0; 16])),
        ("value_array_size_wraps", list(kind::U64, (1 << 61) + 1, &[0; 16])),
        ("value_array_past_end", list(kind::U32, 5, &[0; 16])),
        ("value_strings_past_end", list(kind::STRING, 8_000_000, &[0; 16])),
        (
            "value_string_in_array_past_end",
            list(kind::STRING, 2, &[string(b"a"), vec![9, 0, 0, 0, 0, 0, 0, 0], vec![b'x'; 8]].concat()),
        ),
        ("value_array_unknown_type", list(kind::COUNT, 1, &[0; 16])),
        ("value_array_nested", list(kind::ARRAY, 1, &array(kind::U8, 1, &[0]))),
        ("value_bad_bool", one(b"flag", kind::BOOL, &[2]).bytes()),
        ("value_bad_bool_in_array", list(kind::BOOL, 2, &[1, 255])),
        ("value_invalid_utf8", one(b"key", kind::STRING, &string(b"ab\xc3(")).bytes()),
        ("value_invalid_utf8_in_array", list(kind::STRING, 2, &[string(b"fine"), string(b"\x80")].concat())),
    ]
}

fn tensor_cases() -> Vec<(&'static str, Vec<u8>)> {
    let bad_name = Raw { tensors: vec![tensor(b"\xe9t\xe9", &[4], F32, 0)], ..Raw::default() };
    let twice = Raw::default().tensor("twice", &[4], F32, 0).tensor("twice", &[4], F32, 32).data(64);
    vec![
        ("tensors_bad_name_size", lone(&"n".repeat(64), &[4], F32, 0).bytes()),
        ("tensors_longest_name", lone(&"n".repeat(63), &[4], F32, 0).bytes()),
        ("tensors_invalid_utf8_name", bad_name.data(64).bytes()),
        ("tensors_duplicate_name", twice.bytes()),
        ("tensors_bad_n_dims", lone("t", &[1; 5], F32, 0).bytes()),
        ("tensors_bad_type", lone("t", &[4], 42, 0).bytes()),
        ("tensors_unsupported_type", lone("t", &[32], 39, 0).bytes()),
        ("tensors_bad_offset", lone("t", &[4], F32, u64::MAX).bytes()),
        ("tensors_bad_align", Raw { alignment: 1, ..good().align(13) }.bytes()),
        ("tensors_inconsistent_align", three(Raw::default(), 1).bytes()),
        ("tensors_success", good().bytes()),
        ("tensors_custom_align", three(Raw::default().align(1), 1).bytes()),
    ]
}

fn shape_cases() -> Vec<(&'static str, Vec<u8>)> {
    let big = 4 * i32::MAX as u64;
    vec![
        ("tensors_bad_shape", lone("t", &[u64::MAX], F32, 0).bytes()),
        ("tensors_zero_dim", lone("t", &[4, 0], F32, 64).bytes()),
        ("tensors_zero_dim_past_end", lone("t", &[4, 0], F32, 96).bytes()),
        ("tensors_zero_dim_hides_overflow", lone("t", &[0, big, big], F32, 0).bytes()),
        ("tensors_scalar", lone("t", &[], F32, 0).bytes()),
        ("tensors_ne_too_big", lone("t", &[big, big], F32, 0).bytes()),
        ("tensors_nbytes_too_big", lone("t", &[1 << 31, 1 << 31], F32, 0).bytes()),
        ("tensors_nbytes_pad_wrap", lone("t", &[(1 << 62) - 4], F32, 0).bytes()),
        ("tensors_ragged_row", lone("t", &[33], Q8_0, 0).bytes()),
    ]
}

fn data_cases() -> Vec<(&'static str, Vec<u8>)> {
    let pair = |second: u64| {
        Raw::default().tensor("first", &[16], F32, 0).tensor("second", &[4], F32, second).data(128)
    };
    let inside =
        Raw::default().tensor("x", &[4], F32, 64).tensor("y", &[32], F32, 0).tensor("z", &[4], F32, 192);
    let exabytes = (1 << 62) - 32;
    let huge = Raw::default().tensor("x", &[exabytes], F16, 0).tensor("y", &[exabytes], F16, exabytes * 2);
    let no_data = Raw { alignment: 1, ..Raw::default().tensor("t", &[4], F32, 0) };
    vec![
        ("data_not_enough_data", without_last(good().bytes())),
        ("data_bad_align", three(Raw { alignment: 1, ..Raw::default().align(13) }, 13).bytes()),
        ("data_inconsistent_align", three(Raw::default(), 4).bytes()),
        ("data_mem_size_overflow", huge.data(32).bytes()),
        ("data_success", three(Raw::default(), 32).bytes()),
        ("data_custom_align", three(Raw::default().align(128), 128).bytes()),
        ("data_header_not_padded", no_data.bytes()),
        ("data_padding_past_end", Raw { alignment: 1, ..three(Raw::default().align(1 << 31), 1) }.bytes()),
        ("data_overlap", pair(32).bytes()),
        ("data_same_offset", pair(0).bytes()),
        ("data_overlap_inside", inside.data(256).bytes()),
        ("data_hole", pair(96).bytes()),
        ("data_extra_bytes", [good().bytes(), vec![7; 5]].concat()),
    ]
}
