//! Asking for memory before it is read.

use super::simd::Simd;

/// Bytes of a line of cache.
const LINE: usize = 64;

/// Asks for the bytes that are read next, line by line as others are read: a processor looks ahead by itself only as far
/// as the end of a page.
pub(super) struct Ahead<'a> {
    bytes: &'a [u8],
}

impl<'a> Ahead<'a> {
    /// Stays `distance` bytes ahead of a reader that begins with the first of `bytes`.
    pub(super) fn new(bytes: &'a [u8], distance: usize) -> Self {
        Self { bytes: bytes.get(distance..).unwrap_or(&[]) }
    }
    /// Asks for as many bytes as are being read now.
    #[inline(always)]
    pub(super) fn advance<S: Simd>(&mut self, simd: S, n_bytes: usize) {
        if let Some((next, rest)) = self.bytes.split_at_checked(n_bytes) {
            next.iter().step_by(LINE).for_each(|first| simd.prefetch(first));
            self.bytes = rest;
        }
    }
}
