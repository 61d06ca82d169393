//! Byte-pair merging: neighbouring symbols are joined, best pair first, until no pair can be.
//!
//! SentencePiece vocabularies and byte-level ones share the loop. They differ in what may be joined: any two symbols
//! whose text is a token, the token with the highest score first; or the pairs of a list, in its order. Among
//! equals the leftmost pair goes first (so does llama.cpp; many SentencePiece vocabularies hold tokens of one score).
//!
//! The candidates wait in a heap, so a run of `n` characters takes `O(n log n)`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Marks the end of the list of symbols.
const END: u32 = u32::MAX;

/// A stretch of the text that is, or may become, one token.
#[derive(Debug, Clone)]
pub(super) struct Symbol {
    start: u32,
    end: u32,
    previous: u32,
    next: u32,
    /// The token that the stretch is; `None` for a character that is no token by itself.
    pub(super) token: Option<u32>,
}

impl Symbol {
    /// The stretch, as bytes of the text.
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What two neighbours become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Join {
    /// The order among all joins: the lowest goes first.
    pub(super) rank: u32,
    /// The token they become.
    pub(super) token: u32,
}

/// A pair that may be joined, in the order of the heap: rank, then place. The length tells a pair that still stands
/// from one that has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    right: u32,
    bytes: u32,
    token: u32,
}

/// The symbols of a piece of text, and the pairs that wait; kept from piece to piece to save allocations.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Forgets the last piece.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol of `bytes` bytes. All symbols together must stay below 4 GiB; the caller has checked the
    /// text's length.
    pub(super) fn push(&mut self, bytes: usize, token: Option<u32>) {
        let at = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.end);
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let previous = at.checked_sub(1).unwrap_or(END);
        self.symbols.push(Symbol { start, end: start + bytes as u32, previous, next: END, token });
    }

    /// Joins until nothing can be joined, and answers the symbols that are left, in order. `join` says what two
    /// neighbours become, if anything.
    pub(super) fn merge(
        &mut self,
        join: impl Fn(&Symbol, &Symbol) -> Option<Join>,
    ) -> impl Iterator<Item = &Symbol> {
        for left in 1..self.symbols.len() as u32 {
            self.propose(left - 1, left, &join);
        }
        while let Some(Reverse(pair)) = self.queue.pop() {
            let (left, right) = (&self.symbols[pair.left as usize], &self.symbols[pair.right as usize]);
            let is_stale = left.range().is_empty()
                || right.range().is_empty()
                || left.range().len() + right.range().len() != pair.bytes as usize;
            if is_stale {
                continue;
            }
            let (end, next, previous) = (right.end, right.next, left.previous);
            self.symbols[pair.right as usize].start = end;
            let left = &mut self.symbols[pair.left as usize];
            (left.end, left.next, left.token) = (end, next, Some(pair.token));
            if next != END {
                self.symbols[next as usize].previous = pair.left;
                self.propose(pair.left, next, &join);
            }
            if previous != END {
                self.propose(previous, pair.left, &join);
            }
        }
        self.symbols.iter().filter(|symbol| !symbol.range().is_empty())
    }

    fn propose(&mut self, left: u32, right: u32, join: impl Fn(&Symbol, &Symbol) -> Option<Join>) {
        let (first, second) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some(Join { rank, token }) = join(first, second) {
            let bytes = second.end - first.start;
            self.queue.push(Reverse(Candidate { rank, left, right, bytes, token }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins `text` over a list of tokens, the earlier the better.
    fn merge(text: &str, tokens: &[&str]) -> Vec<String> {
        let mut merger = Merger::default();
        for character in text.chars() {
            merger.push(character.len_utf8(), None);
        }
        let join = |left: &Symbol, right: &Symbol| {
            let rank =
                tokens.iter().position(|token| *token == &text[left.range().start..right.range().end])?;
            Some(Join { rank: rank as u32, token: rank as u32 })
        };
        merger.merge(join).map(|symbol| text[symbol.range()].to_owned()).collect()
    }

    #[test]
    fn the_best_pair_goes_first_and_the_leftmost_among_equals() {
        assert_eq!(merge("abc", &["bc", "ab", "abc"]), ["abc"]);
        assert_eq!(merge("abc", &["bc", "ab"]), ["a", "bc"]);
        assert_eq!(merge("aaa", &["aa"]), ["aa", "a"]);
        assert_eq!(merge("", &["aa"]), Vec::<String>::new());
    }

    #[test]
    fn a_character_that_is_no_token_can_still_be_joined() {
        assert_eq!(merge("x\u{e9}y", &["x\u{e9}"]), ["x\u{e9}", "y"]);
    }
}
