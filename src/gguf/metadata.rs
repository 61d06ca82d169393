//! Typed metadata: keys in file order, values with checked getters that name the key in their error.

use std::collections::HashMap;

use super::MetadataError;

/// An array of one element type; arrays of arrays are refused by the reader.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum MetadataArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
}

/// A metadata value; one variant for each value type of the format.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum MetadataValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(MetadataArray),
}

impl MetadataValue {
    /// The name of the value's type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "a u8",
            Self::I8(_) => "an i8",
            Self::U16(_) => "a u16",
            Self::I16(_) => "an i16",
            Self::U32(_) => "a u32",
            Self::I32(_) => "an i32",
            Self::U64(_) => "a u64",
            Self::I64(_) => "an i64",
            Self::F32(_) => "an f32",
            Self::F64(_) => "an f64",
            Self::Bool(_) => "a bool",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
        }
    }
}

/// The metadata of a file: an ordered map.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, MetadataValue)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        let (_, value) = self.entries.get(*self.index.get(key)?)?;
        Some(value)
    }
    /// Keys and values, in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetadataValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }
    /// Sets a key, at its place if it is there, else at the end; answers what it replaced.
    pub fn set(&mut self, key: impl Into<String>, value: MetadataValue) -> Option<MetadataValue> {
        let key = key.into();
        match self.index.get(&key).and_then(|&at| self.entries.get_mut(at)) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
                None
            }
        }
    }
    /// Takes a key out; answers its value.
    pub fn remove(&mut self, key: &str) -> Option<MetadataValue> {
        let at = self.index.remove(key)?;
        let (_, value) = self.entries.remove(at);
        for place in self.index.values_mut().filter(|place| **place > at) {
            *place = place.saturating_sub(1);
        }
        Some(value)
    }
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// The value read by `read`, `None` where the key is missing, an error where `read` refuses the value.
    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(MetadataError::WrongType { key: key.to_owned(), expected, found: value.type_name() }),
        }
    }
    /// An integer of any width that is not negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, MetadataError> {
        self.read(key, "a non-negative integer", |value| match *value {
            MetadataValue::U8(v) => Some(v.into()),
            MetadataValue::U16(v) => Some(v.into()),
            MetadataValue::U32(v) => Some(v.into()),
            MetadataValue::U64(v) => Some(v),
            MetadataValue::I8(v) => v.try_into().ok(),
            MetadataValue::I16(v) => v.try_into().ok(),
            MetadataValue::I32(v) => v.try_into().ok(),
            MetadataValue::I64(v) => v.try_into().ok(),
            _ => None,
        })
    }
    /// An integer that fits 32 bits and is not negative.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, MetadataError> {
        match self.u64(key)? {
            None => Ok(None),
            Some(value) => u32::try_from(value).map(Some).map_err(|_| MetadataError::OutOfRange {
                key: key.to_owned(),
                value: value.to_string(),
                expected: "at most 4294967295".to_owned(),
            }),
        }
    }
    /// A floating-point number of either width.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, MetadataError> {
        self.read(key, "a float", |value| match *value {
            MetadataValue::F32(v) => Some(v),
            MetadataValue::F64(v) => Some(v as f32),
            _ => None,
        })
    }
    /// A bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, MetadataError> {
        self.read(key, "a bool", |value| match *value {
            MetadataValue::Bool(v) => Some(v),
            _ => None,
        })
    }
    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, MetadataError> {
        self.read(key, "a string", |value| match value {
            MetadataValue::String(v) => Some(v.as_str()),
            _ => None,
        })
    }
    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, MetadataError> {
        self.read(key, "an array of strings", |value| match value {
            MetadataValue::Array(MetadataArray::String(v)) => Some(v.as_slice()),
            _ => None,
        })
    }
    /// An array of single-precision floats.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>, MetadataError> {
        self.read(key, "an array of f32", |value| match value {
            MetadataValue::Array(MetadataArray::F32(v)) => Some(v.as_slice()),
            _ => None,
        })
    }
    /// An array of 32-bit integers, none of them negative.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, MetadataError> {
        self.read(key, "an array of non-negative 32-bit integers", |value| match value {
            MetadataValue::Array(MetadataArray::U32(v)) => Some(v.clone()),
            MetadataValue::Array(MetadataArray::I32(v)) => v.iter().map(|&v| v.try_into().ok()).collect(),
            _ => None,
        })
    }
    /// The value of a key that must be there: `metadata.require(key, Metadata::u32)`.
    pub fn require<'a, T>(
        &'a self,
        key: &str,
        read: impl FnOnce(&'a Self, &str) -> Result<Option<T>, MetadataError>,
    ) -> Result<T, MetadataError> {
        read(self, key)?.ok_or_else(|| MetadataError::Missing { key: key.to_owned() })
    }
}
