//! Stop texts in a stream: what could become one is held back until it is decided.

/// Watches a stream for stop texts.
pub(super) struct StopWatch<'a> {
    stops: &'a [String],
    held: String,
}

impl<'a> StopWatch<'a> {
    pub(super) fn new(stops: &'a [String]) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes text; answers what can be printed and, if a stop text occurred, which. Nothing after it is kept.
    pub(super) fn push(&mut self, text: &str) -> (String, Option<&'a str>) {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, stop.as_str())))
            .min_by_key(|(at, _)| *at);
        if let Some((at, stop)) = found {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let undecided = self.stops.iter().map(|stop| self.overlap(stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - undecided);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What is still held back when the stream ends.
    pub(super) fn finish(self) -> String {
        self.held
    }

    /// Bytes at the end of the held text that are the beginning of `stop`.
    fn overlap(&self, stop: &str) -> usize {
        (1..stop.len().min(self.held.len() + 1))
            .rev()
            .find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut watch = StopWatch::new(&stops);
        let mut printed = String::new();
        for piece in pieces {
            let (text, stop) = watch.push(piece);
            printed += &text;
            if let Some(stop) = stop {
                return (printed, Some(stop.to_owned()));
            }
        }
        (printed + &watch.finish(), None)
    }

    #[test]
    fn a_stop_text_ends_the_stream_wherever_it_is_cut() {
        let whole = "one two</s>three";
        for cut in 1..whole.len() {
            let (text, stop) = run(&["</s>"], &[&whole[..cut], &whole[cut..]]);
            assert_eq!((text.as_str(), stop.as_deref()), ("one two", Some("</s>")), "cut at {cut}");
        }
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(run(&["cd", "b"], &["a", "bcd"]), ("a".to_owned(), Some("b".to_owned())));
    }

    #[test]
    fn text_that_only_looks_like_a_beginning_is_printed() {
        assert_eq!(run(&["</s>"], &["a</", "b</s"]), ("a</b</s".to_owned(), None));
        assert_eq!(run(&[], &["a", "b"]), ("ab".to_owned(), None));
        assert_eq!(run(&["", "éé"], &["é", "x"]), ("éx".to_owned(), None));
    }

    #[test]
    fn decided_text_is_not_held_back() {
        let stops = vec!["###".to_owned()];
        let mut watch = StopWatch::new(&stops);
        assert_eq!(watch.push("abc#"), ("abc".to_owned(), None));
        assert_eq!(watch.push("d"), ("#d".to_owned(), None));
    }
}
