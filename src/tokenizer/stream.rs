//! Decoding token by token, without ever printing half a character.

use super::{Tokenizer, TokenizerError};

/// Text from tokens as they are generated. A token may end inside a character: its bytes wait until the
/// character is whole.
///
/// All that [`push`](Self::push) answers, and then [`finish`](Self::finish), is together the text of all pieces;
/// bytes that are not UTF-8 become U+FFFD. Each piece is taken as it stands: the space that SentencePiece puts before
/// a word is kept at the start too, because generated text continues a prompt.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    tokenizer: Tokenizer,
    keep_special: bool,
    waiting: Vec<u8>,
}

impl DecodeStream {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, keep_special: false, waiting: Vec::new() }
    }

    /// Prints special tokens as they are spelled, instead of leaving them out.
    #[must_use]
    pub fn keep_special(mut self, keep: bool) -> Self {
        self.keep_special = keep;
        self
    }

    /// Takes one token and answers the text that became complete with it, which may be empty.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownToken`] for an id that is not in the vocabulary; the stream stays usable.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let bytes = self.tokenizer.checked_bytes(id)?;
        if self.keep_special || !self.tokenizer.is_special(id) {
            self.waiting.extend_from_slice(&bytes);
        }
        let incomplete = incomplete_tail(&self.waiting);
        let tail = self.waiting.split_off(self.waiting.len() - incomplete);
        let complete = std::mem::replace(&mut self.waiting, tail);
        Ok(String::from_utf8_lossy(&complete).into_owned())
    }

    /// Ends the stream: the bytes that still wait for the rest of their character, as U+FFFD. Empty where
    /// nothing waits.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.waiting).into_owned()
    }
}

/// Bytes at the end that are the beginning of a character, and no more than that.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(_) => return 0,
            Err(error) => match error.error_len() {
                None => return rest.len() - error.valid_up_to(),
                Some(invalid) => rest = &rest[error.valid_up_to() + invalid..],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_a_character_waits() {
        for (bytes, waits) in [
            (&b"abc"[..], 0),
            (b"ab\xE2", 1),
            (b"\xE2\x96", 2),
            (b"\xE2\x96\x81", 0),
            (b"\xF0\x9F\x98", 3),
            (b"\xFF", 0),
            (b"\xFFx\xC3", 1),
            (b"\xE2\xE2", 1),
            (b"\x96\x81", 0),
        ] {
            assert_eq!(incomplete_tail(bytes), waits, "{bytes:?}");
        }
    }
}
