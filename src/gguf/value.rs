//! Metadata values on disk: one table of types, read and written from it.

use super::cursor::{Cursor, ReadFault};
use super::error::KeyFault;
use super::limits::{Budget, within};
use super::metadata::{MetadataArray, MetadataValue};

/// The types whose numbers the table below does not give.
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of the smallest string: its length.
const MIN_STRING_BYTES: u64 = 8;

/// The numeric types: the number on disk, the variant, the Rust type. All are stored little-endian.
macro_rules! numeric_types {
    ($($id:literal $variant:ident $number:ty;)*) => {
        /// A number, or `None` if `id` names no numeric type.
        fn read_number(cursor: &mut Cursor<'_>, id: u32) -> Result<Option<MetadataValue>, ReadFault> {
            Ok(Some(match id {
                $($id => MetadataValue::$variant(<$number>::from_le_bytes(cursor.array("value")?)),)*
                _ => return Ok(None),
            }))
        }
        /// An array of numbers, or `None` if `id` names no numeric type.
        fn read_numbers(
            cursor: &mut Cursor<'_>,
            budget: &mut Budget<'_>,
            id: u32,
            count: u64,
        ) -> Result<Option<MetadataArray>, ReadFault> {
            Ok(Some(match id {
                $($id => {
                    const BYTES: usize = size_of::<$number>();
                    let bytes = cursor.bytes("array", count.saturating_mul(BYTES as u64))?;
                    budget.charge_metadata(bytes.len() as u64)?;
                    let (numbers, _) = bytes.as_chunks::<BYTES>();
                    MetadataArray::$variant(numbers.iter().map(|&number| <$number>::from_le_bytes(number)).collect())
                })*
                _ => return Ok(None),
            }))
        }
        /// The type number of a value.
        fn value_type(value: &MetadataValue) -> u32 {
            match value {
                $(MetadataValue::$variant(_) => $id,)*
                MetadataValue::Bool(_) => BOOL,
                MetadataValue::String(_) => STRING,
                MetadataValue::Array(_) => ARRAY,
            }
        }
        /// Appends a value, without its type.
        fn write_payload(out: &mut Vec<u8>, value: &MetadataValue) {
            match value {
                $(MetadataValue::$variant(number) => out.extend(number.to_le_bytes()),)*
                MetadataValue::Bool(flag) => out.push(u8::from(*flag)),
                MetadataValue::String(text) => write_string(out, text),
                MetadataValue::Array(array) => write_array(out, array),
            }
        }
        /// Appends an array: element type, count, elements.
        fn write_array(out: &mut Vec<u8>, array: &MetadataArray) {
            let mut head = |id: u32, count: usize| {
                out.extend(id.to_le_bytes());
                out.extend((count as u64).to_le_bytes());
            };
            match array {
                $(MetadataArray::$variant(numbers) => {
                    head($id, numbers.len());
                    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
                })*
                MetadataArray::Bool(flags) => {
                    head(BOOL, flags.len());
                    out.extend(flags.iter().map(|&flag| u8::from(flag)));
                }
                MetadataArray::String(texts) => {
                    head(STRING, texts.len());
                    texts.iter().for_each(|text| write_string(out, text));
                }
            }
        }
    };
}

numeric_types! {
    0 U8 u8;
    1 I8 i8;
    2 U16 u16;
    3 I16 i16;
    4 U32 u32;
    5 I32 i32;
    6 F32 f32;
    10 U64 u64;
    11 I64 i64;
    12 F64 f64;
}

/// A value with its type before it.
pub(super) fn read_value(
    cursor: &mut Cursor<'_>,
    budget: &mut Budget<'_>,
) -> Result<MetadataValue, ReadFault> {
    match cursor.u32("value type")? {
        BOOL => read_bool(cursor.array("value")?).map(MetadataValue::Bool),
        STRING => {
            let text = cursor.text(["string", "string length"], budget.limits.string_bytes)?;
            budget.charge_metadata(text.len())?;
            text.into_string().map(MetadataValue::String)
        }
        ARRAY => read_array(cursor, budget).map(MetadataValue::Array),
        id => read_number(cursor, id)?.ok_or(ReadFault::Key(KeyFault::UnknownType { id })),
    }
}

fn read_array(cursor: &mut Cursor<'_>, budget: &mut Budget<'_>) -> Result<MetadataArray, ReadFault> {
    let id = cursor.u32("array element type")?;
    let count = cursor.u64("array length")?;
    let count = within("array length", count, budget.limits.array_elements)?;
    match id {
        BOOL => {
            let bytes = cursor.bytes("array", count)?;
            budget.charge_metadata(count)?;
            bytes.iter().map(|&byte| read_bool([byte])).collect::<Result<_, _>>().map(MetadataArray::Bool)
        }
        STRING => read_strings(cursor, budget, count).map(MetadataArray::String),
        ARRAY => Err(ReadFault::Key(KeyFault::NestedArray)),
        id => read_numbers(cursor, budget, id, count)?.ok_or(ReadFault::Key(KeyFault::UnknownType { id })),
    }
}

fn read_strings(
    cursor: &mut Cursor<'_>,
    budget: &mut Budget<'_>,
    count: u64,
) -> Result<Vec<String>, ReadFault> {
    cursor.check_room("array of strings", count, MIN_STRING_BYTES)?;
    budget.charge_metadata(count.saturating_mul(size_of::<String>() as u64))?;
    let mut strings = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let names = ["string of an array", "length of a string of an array"];
        let text = cursor.text(names, budget.limits.string_bytes)?;
        budget.charge_metadata(text.len())?;
        strings.push(text.into_string()?);
    }
    Ok(strings)
}

fn read_bool([byte]: [u8; 1]) -> Result<bool, ReadFault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(ReadFault::Key(KeyFault::BadBool { found })),
    }
}

/// Appends a value with its type before it.
pub(super) fn write_value(out: &mut Vec<u8>, value: &MetadataValue) {
    out.extend(value_type(value).to_le_bytes());
    write_payload(out, value);
}

/// Appends a string with its length before it.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
