//! Asking for memory before it is read.

use super::simd::Simd;

/// Bytes of a line of cache.
const LINE: usize = 64;

/// Asks for the bytes that are read next, line by line as others are read: a processor looks ahead by itself only as far
/// as the end of a page.
pub(super) struct Ahead<'a> {
    lines: std::slice::Chunks<'a, u8>,
    /// Bytes that were read and not yet matched by a line that was asked for.
    pending: usize,
}

impl<'a> Ahead<'a> {
    /// Stays `distance` bytes ahead of a reader that begins with the first of `bytes`.
    pub(super) fn new(bytes: &'a [u8], distance: usize) -> Self {
        Self { lines: bytes.get(distance..).unwrap_or(&[]).chunks(LINE), pending: 0 }
    }
    /// Asks for as many bytes as are being read now.
    #[inline(always)]
    pub(super) fn advance<S: Simd>(&mut self, simd: S, n_bytes: usize) {
        self.pending += n_bytes;
        while self.pending >= LINE {
            self.pending -= LINE;
            if let Some([first, ..]) = self.lines.next() {
                simd.prefetch(first);
            }
        }
    }
}
