//! The header of one file: magic, version, counts, metadata, tensor table.

use super::cursor::{Cursor, ReadFault, Text};
use super::error::{GgufError, KeyFault, MetadataError, Place, TensorFault};
use super::limits::{Budget, within};
use super::metadata::{Metadata, MetadataValue};
use super::tensor::{DataSection, Entry, TensorInfo};
use super::value::read_value;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, MAX_KEY_BYTES, MAX_NAME_BYTES};

/// Bytes of the smallest metadata entry: length, one byte of key, type, one byte of value.
const MIN_ENTRY_BYTES: u64 = 14;
/// Bytes of the smallest tensor entry: length, dimension count, type, offset.
const MIN_TENSOR_BYTES: u64 = 24;

/// What one file says about itself, validated.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
}

impl Header {
    /// Reads and validates the header of shard number `shard`; looks at no byte of tensor data.
    pub(super) fn parse(bytes: &[u8], shard: usize, budget: &mut Budget<'_>) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let version = read_version(&mut cursor)?;
        let in_header = |fault: ReadFault| fault.at(Place::Header);
        let n_tensors = cursor.u64("tensor count").map_err(in_header)?;
        let n_keys = cursor.u64("metadata entry count").map_err(in_header)?;
        budget.charge_tensors(n_tensors).map_err(|excess| excess.at(Place::Header))?;
        within("metadata entry count", n_keys, budget.limits.metadata_keys)
            .map_err(|excess| excess.at(Place::Header))?;

        cursor.check_room("metadata", n_keys, MIN_ENTRY_BYTES).map_err(in_header)?;
        let mut metadata = Metadata::default();
        for index in 0..n_keys {
            read_entry(&mut cursor, index, budget, &mut metadata)?;
        }
        let alignment = alignment_of(&metadata)?;

        cursor.check_room("tensor table", n_tensors, MIN_TENSOR_BYTES).map_err(in_header)?;
        let entries =
            (0..n_tensors).map(|index| read_tensor(&mut cursor, index)).collect::<Result<Vec<_>, _>>()?;
        if n_tensors > 0 {
            cursor.align(alignment).map_err(in_header)?;
        }
        let data = DataSection { shard, start: cursor.offset(), n_bytes: cursor.remaining(), alignment };
        Ok(Self { version, alignment, metadata, tensors: data.validate(entries)? })
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let found = cursor.array("magic").map_err(|fault| fault.at(Place::Header))?;
    if found != MAGIC {
        return Err(GgufError::NotGguf { found });
    }
    let version = cursor.u32("version").map_err(|fault| fault.at(Place::Header))?;
    match version {
        2 | 3 => Ok(version),
        // A small number read in the wrong byte order has its low half empty.
        _ if version != 0 && version & 0xffff == 0 => {
            Err(GgufError::BigEndian { version: version.swap_bytes() })
        }
        found => Err(GgufError::Version { found }),
    }
}

fn read_entry(
    cursor: &mut Cursor<'_>,
    index: u64,
    budget: &mut Budget<'_>,
    metadata: &mut Metadata,
) -> Result<(), GgufError> {
    let at_entry = |fault: ReadFault| fault.at(Place::Entry(index));
    let key = cursor.text(["key", "key length"], MAX_KEY_BYTES).map_err(at_entry)?;
    if key.len() == 0 {
        return Err(at_entry(ReadFault::Key(KeyFault::Empty)));
    }
    // The map keeps the key twice, once in file order and once to find it.
    let in_memory = key.len().saturating_add(size_of::<(String, MetadataValue)>() as u64).saturating_mul(2);
    budget.charge_metadata(in_memory).map_err(|excess| excess.at(Place::Entry(index)))?;
    let key = key.into_string().map_err(at_entry)?;
    let at_key = |fault: ReadFault| fault.at(Place::Value(key.clone()));
    let value = read_value(cursor, budget).map_err(at_key)?;
    if metadata.get(&key).is_some() {
        return Err(at_key(ReadFault::Key(KeyFault::Duplicate)));
    }
    metadata.set(key, value);
    Ok(())
}

/// `general.alignment`, which must be a power of two stored as a u32.
pub(super) fn alignment_of(metadata: &Metadata) -> Result<u64, MetadataError> {
    let key = || ALIGNMENT_KEY.to_owned();
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(MetadataValue::U32(value)) if value.is_power_of_two() => Ok((*value).into()),
        Some(MetadataValue::U32(value)) => Err(MetadataError::OutOfRange {
            key: key(),
            value: value.to_string(),
            expected: "a power of two".to_owned(),
        }),
        Some(other) => {
            Err(MetadataError::WrongType { key: key(), expected: "a u32", found: other.type_name() })
        }
    }
}

fn read_tensor(cursor: &mut Cursor<'_>, index: u64) -> Result<Entry, GgufError> {
    let name = cursor
        .text(["name", "name length"], MAX_NAME_BYTES)
        .and_then(Text::into_string)
        .map_err(|fault| fault.at(Place::TensorEntry(index)))?;
    let at_tensor = |fault: ReadFault| fault.at(Place::Tensor(name.clone()));
    let n_dims = cursor.u32("dimension count").map_err(at_tensor)?;
    if n_dims > MAX_DIMS {
        let fault = TensorFault::DimensionCount { found: n_dims };
        return Err(GgufError::Tensor { name, fault });
    }
    let dims = (0..n_dims).map(|_| cursor.u64("dimension")).collect::<Result<_, _>>().map_err(at_tensor)?;
    let type_id = cursor.u32("type").map_err(at_tensor)?;
    let offset = cursor.u64("offset").map_err(at_tensor)?;
    Ok(Entry { name, dims, type_id, offset })
}
