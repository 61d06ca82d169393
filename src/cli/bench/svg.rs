//! Charts as SVG: axes with ticks, lines, points with labels. The colours are legible on white and on black.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// The corners of the plane: left, right, top, bottom.
const PLANE: [f64; 4] = [78.0, 696.0, 60.0, 364.0];
/// The least distance of two labels, one above the other.
const LABEL_HEIGHT: f64 = 14.0;
/// About what a letter of a label is wide.
const LETTER_WIDTH: f64 = 6.5;

/// Grey of text and axes.
const INK: &str = "#6e7781";

/// How values are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// An axis: what it measures, and from where to where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub title: &'static str,
    pub low: f64,
    pub high: f64,
    pub scale: Scale,
}

impl Axis {
    /// From 0 to a little more than the largest value.
    pub(super) fn from_zero(title: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let high = values.fold(0.0_f64, f64::max) * 1.08;
        Self { title, low: 0.0, high: if high > 0.0 { high } else { 1.0 }, scale: Scale::Linear }
    }
    /// Around all values, on a logarithmic scale.
    pub(super) fn around(title: &'static str, values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE);
        let high = values.fold(low, f64::max);
        Self { title, low: low / 2.0, high: high * 2.0, scale: Scale::Logarithmic }
    }
    /// Where a value stands: 0 at the low end, 1 at the high one.
    pub(super) fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }
    /// Round values to be marked.
    fn ticks(&self) -> Vec<f64> {
        let decade = |value: f64| 10_f64.powf(value.log10().floor());
        let round = [1.0, 2.0, 5.0];
        match self.scale {
            Scale::Linear => {
                let least = (self.high - self.low) / 6.0;
                let step = round.iter().map(|n| n * decade(least)).find(|step| *step >= least);
                let step = step.unwrap_or(10.0 * decade(least));
                let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
                (first..=last).map(|n| n as f64 * step).collect()
            }
            Scale::Logarithmic => {
                let decades = (self.low.log10().floor() as i32)..=(self.high.log10().floor() as i32);
                decades
                    .flat_map(|exponent| round.map(|n| n * 10_f64.powi(exponent)))
                    .filter(|value| (self.low..=self.high).contains(value))
                    .collect()
            }
        }
    }
}

/// A point with its label.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub x: f64,
    pub y: f64,
    pub label: String,
}

/// A chart that is being drawn.
pub(super) struct Chart {
    x: Axis,
    y: Axis,
    body: String,
}

/// A number without a tail of zeros: `1000`, `2.5`, `0.02`.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text in which nothing is markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Chart {
    /// Axes, their titles and ticks, and a heading.
    pub(super) fn new(heading: &str, x: Axis, y: Axis) -> Self {
        let mut chart = Self { x, y, body: String::new() };
        let [left, right, top, bottom] = PLANE;
        chart.text((left, 22.0), "start", "", heading);
        for tick in x.ticks() {
            let (at, _) = chart.place(tick, y.low);
            chart.line(&[(at, top), (at, bottom)], INK, "stroke-opacity=\"0.25\"");
            chart.text((at, bottom + 18.0), "middle", "", &short(tick));
        }
        for tick in y.ticks() {
            let (_, at) = chart.place(x.low, tick);
            chart.line(&[(left, at), (right, at)], INK, "stroke-opacity=\"0.25\"");
            chart.text((left - 8.0, at + 4.0), "end", "", &short(tick));
        }
        chart.line(&[(left, top), (left, bottom), (right, bottom)], INK, "");
        chart.text((f64::midpoint(left, right), HEIGHT - 12.0), "middle", "", x.title);
        let middle = f64::midpoint(top, bottom);
        chart.text((20.0, middle), "middle", &format!(" transform=\"rotate(-90 20 {middle})\""), y.title);
        chart
    }

    /// Where values stand in the picture.
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let [left, right, top, bottom] = PLANE;
        (left + self.x.share(x) * (right - left), bottom - self.y.share(y) * (bottom - top))
    }

    fn line(&mut self, places: &[(f64, f64)], colour: &str, more: &str) {
        let places: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let places = places.join(" ");
        let _ =
            writeln!(self.body, "<polyline points=\"{places}\" stroke=\"{colour}\" fill=\"none\" {more}/>");
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, more: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{INK}\"{more}>{text}</text>"
        );
    }

    /// A line through values, broken where it is an ideal and not a measurement.
    pub(super) fn curve(&mut self, values: &[(f64, f64)], colour: &str, is_ideal: bool) {
        let places: Vec<_> = values.iter().map(|&(x, y)| self.place(x, y)).collect();
        let dashes =
            if is_ideal { "stroke-width=\"1.5\" stroke-dasharray=\"6 4\"" } else { "stroke-width=\"1.5\"" };
        self.line(&places, colour, dashes);
    }

    /// What the colours mean, side by side under the heading.
    pub(super) fn legend(&mut self, entries: &[(&str, &str)]) {
        let [left, ..] = PLANE;
        for (index, (colour, text)) in entries.iter().enumerate() {
            let (at, text) = (left + 190.0 * index as f64, escaped(text));
            let _ = writeln!(self.body, "<text x=\"{at:.1}\" y=\"42.0\" fill=\"{colour}\">{text}</text>");
        }
    }

    /// Points, each with its label above it; labels that would cover each other are moved down.
    pub(super) fn marks(&mut self, marks: &[Mark], colour: &str) {
        let [left, right, ..] = PLANE;
        let mut marks: Vec<_> = marks.iter().map(|mark| (self.place(mark.x, mark.y), &mark.label)).collect();
        marks.sort_by(|((_, a), _), ((_, b), _)| a.total_cmp(b));
        let mut taken: Vec<(f64, f64, f64)> = Vec::new();
        for ((x, y), label) in marks {
            let _ = writeln!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
            let is_left = x < f64::midpoint(left, right);
            let width = LETTER_WIDTH * label.chars().count() as f64;
            let (begin, beside, anchor) =
                if is_left { (x + 6.0, x + 6.0, "start") } else { (x - 6.0 - width, x - 6.0, "end") };
            let beneath = taken.iter().filter(|(from, to, _)| *from < begin + width && begin < *to);
            let at = beneath.map(|(_, _, at)| at + LABEL_HEIGHT).fold(y - 7.0, f64::max);
            taken.push((begin, begin + width, at));
            self.text((beside, at), anchor, "", label);
        }
    }

    /// The whole file.
    pub(super) fn finish(self) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n{}</svg>\n",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_put_values_where_they_belong() {
        let linear = Axis { title: "", low: 0.0, high: 8.0, scale: Scale::Linear };
        assert_eq!((linear.share(0.0), linear.share(2.0), linear.share(8.0)), (0.0, 0.25, 1.0));
        let logarithmic = Axis { title: "", low: 1.0, high: 100.0, scale: Scale::Logarithmic };
        assert!((logarithmic.share(10.0) - 0.5).abs() < 1e-12);
        assert_eq!(logarithmic.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(linear.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!((short(1000.0), short(2.5), short(0.02)), ("1000".into(), "2.5".into(), "0.02".into()));
    }

    #[test]
    fn labels_do_not_cover_each_other_and_hold_no_markup() {
        let axis = Axis::from_zero("seconds, s", [1.0].into_iter());
        let mut chart = Chart::new("a < b & c", axis, axis);
        let mark = |x, y, label: &str| Mark { x, y, label: label.to_owned() };
        chart.marks(&[mark(0.5, 0.5, "low"), mark(0.5, 0.501, "high"), mark(0.9, 0.501, "far")], "blue");
        let text = chart.finish();
        assert!(text.contains(">a &lt; b &amp; c<"), "{text}");
        let height = |label: &str| -> f64 {
            let line = text.lines().find(|line| line.contains(&format!(">{label}<"))).unwrap_or_default();
            let (_, rest) = line.split_once(" y=\"").unwrap_or_default();
            rest.split('"').next().and_then(|y| y.parse().ok()).unwrap_or(f64::NAN)
        };
        assert!(height("low") - height("high") >= LABEL_HEIGHT - 0.1, "{text}");
        assert_eq!(height("far"), height("high"), "they are far apart");
    }
}
