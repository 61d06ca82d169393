//! The checked cursor: every read is compared with what is left before it happens.

use super::error::{GgufError, KeyFault, Place};
use super::limits::{Excess, within};

/// A position in the bytes of a file.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    file_bytes: u64,
}

/// A read that failed; the reader adds the place.
pub(super) enum ReadFault {
    Truncated { what: &'static str, offset: u64, wanted: u64, available: u64 },
    Excess(Excess),
    InvalidUtf8 { what: &'static str, offset: u64 },
    Key(KeyFault),
}

impl From<Excess> for ReadFault {
    fn from(excess: Excess) -> Self {
        Self::Excess(excess)
    }
}

impl ReadFault {
    pub(super) fn at(self, place: Place) -> GgufError {
        match self {
            Self::Truncated { what, offset, wanted, available } => {
                GgufError::Truncated { place, what, offset, wanted, available }
            }
            Self::Excess(excess) => excess.at(place),
            Self::InvalidUtf8 { what, offset } => GgufError::InvalidUtf8 { place, what, offset },
            Self::Key(fault) => GgufError::Key { place, fault },
        }
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, file_bytes: bytes.len() as u64 }
    }
    /// Bytes from the start of the file.
    pub(super) fn offset(&self) -> u64 {
        self.file_bytes.saturating_sub(self.remaining())
    }
    /// Bytes to the end of the file.
    pub(super) fn remaining(&self) -> u64 {
        self.rest.len() as u64
    }
    /// Refuses a count of things of at least `each` bytes that what is left cannot hold.
    pub(super) fn check_room(&self, what: &'static str, count: u64, each: u64) -> Result<(), ReadFault> {
        let wanted = count.saturating_mul(each);
        if wanted > self.remaining() { Err(self.truncated(what, wanted)) } else { Ok(()) }
    }
    fn truncated(&self, what: &'static str, wanted: u64) -> ReadFault {
        ReadFault::Truncated { what, offset: self.offset(), wanted, available: self.remaining() }
    }
    /// Skips to the next multiple of `alignment`, a power of two.
    pub(super) fn align(&mut self, alignment: u64) -> Result<(), ReadFault> {
        let past = self.offset().checked_rem(alignment).unwrap_or(0);
        if past > 0 {
            self.bytes("padding before the tensor data", alignment.saturating_sub(past))?;
        }
        Ok(())
    }
    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, what: &'static str, count: u64) -> Result<&'a [u8], ReadFault> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (head, rest) = split.ok_or_else(|| self.truncated(what, count))?;
        self.rest = rest;
        Ok(head)
    }
    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReadFault> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.truncated(what, N as u64))?;
        self.rest = rest;
        Ok(*head)
    }
    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, ReadFault> {
        self.array(what).map(u32::from_le_bytes)
    }
    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, ReadFault> {
        self.array(what).map(u64::from_le_bytes)
    }
    /// A length of 64 bits and as many bytes of text; `names` are those of the text and of its length, for messages.
    pub(super) fn text(&mut self, names: [&'static str; 2], limit: u64) -> Result<Text<'a>, ReadFault> {
        let [what, length_name] = names;
        let length = self.u64(length_name)?;
        let length = within(length_name, length, limit)?;
        let offset = self.offset();
        Ok(Text { what, offset, bytes: self.bytes(what, length)? })
    }
}

/// Text in the file, not looked at yet, so that its length can be charged before it is copied.
pub(super) struct Text<'a> {
    what: &'static str,
    offset: u64,
    bytes: &'a [u8],
}

impl Text<'_> {
    /// Bytes of the text.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    /// A copy, which is then checked: another process could change a mapped file between a check and a copy.
    pub(super) fn into_string(self) -> Result<String, ReadFault> {
        String::from_utf8(self.bytes.to_vec()).map_err(|error| ReadFault::InvalidUtf8 {
            what: self.what,
            offset: self.offset.saturating_add(error.utf8_error().valid_up_to() as u64),
        })
    }
}
