//! The charts of `bench --plot`: tests under the memory's roof, and decode by depth. Data in, SVG out.

use super::svg::{Axis, Chart, Mark};

const MEASURED: &str = "#2f81f7";
const IDEAL: &str = "#d4700a";
/// Bytes of a megabyte.
const MEGABYTE: f64 = 1e6;

/// A test as it is drawn.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub name: String,
    pub bytes_per_token: f64,
    pub tokens_per_second: f64,
    /// Tokens that the cache held before, where the test is all generation.
    pub depth: Option<f64>,
    /// Sequences that stepped together.
    pub n_parallel: usize,
}

fn memory_alone(bandwidth: f64) -> String {
    format!("the memory alone, at {:.1} GB/s", bandwidth / 1e9)
}

/// Tokens a second of each test over the bytes that a token reads, both logarithmic, under the memory's roof: `bandwidth`
/// bytes a second. `None` where there are no points.
pub(super) fn roofline(heading: &str, points: &[Point], bandwidth: f64) -> Option<String> {
    if points.is_empty() {
        return None;
    }
    let megabytes = |point: &Point| point.bytes_per_token / MEGABYTE;
    let roof = |x: f64| bandwidth / (x * MEGABYTE);
    let x = Axis::around("bytes that a token reads at least, MB", points.iter().map(megabytes));
    let speeds = points.iter().flat_map(|point| [point.tokens_per_second, roof(megabytes(point))]);
    let y = Axis::around("tokens a second", speeds);
    let mut chart = Chart::new(heading, x, y);
    // The roof is a straight line; it leaves the plane where it crosses the top or the bottom.
    let ends = [x.low.max(bandwidth / y.high / MEGABYTE), x.high.min(bandwidth / y.low / MEGABYTE)];
    chart.curve(&ends.map(|x| (x, roof(x))), IDEAL, true);
    chart.legend(&[(MEASURED, "measured"), (IDEAL, &memory_alone(bandwidth))]);
    let mark =
        |point: &Point| Mark { x: megabytes(point), y: point.tokens_per_second, label: point.name.clone() };
    chart.marks(&points.iter().map(mark).collect::<Vec<_>>(), MEASURED);
    Some(chart.finish())
}

/// Tokens a second of generation over the tokens in the cache, beside what the memory alone would allow; a line for each
/// number of sequences. `None` where no test is all generation.
pub(super) fn decode_by_depth(heading: &str, points: &[Point], bandwidth: f64) -> Option<String> {
    let mut decode: Vec<(f64, &Point)> =
        points.iter().filter_map(|point| Some((point.depth?, point))).collect();
    if decode.is_empty() {
        return None;
    }
    decode.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let ideal = |point: &Point| bandwidth / point.bytes_per_token;
    let x = Axis::from_zero("tokens in the cache before", decode.iter().map(|(depth, _)| *depth));
    let speeds = decode.iter().flat_map(|(_, point)| [point.tokens_per_second, ideal(point)]);
    let mut chart = Chart::new(heading, x, Axis::from_zero("tokens a second, all sequences", speeds));
    let mut numbers: Vec<usize> = decode.iter().map(|(_, point)| point.n_parallel).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let line = || decode.iter().filter(|(_, point)| point.n_parallel == number);
        let measured: Vec<_> = line().map(|(depth, point)| (*depth, point.tokens_per_second)).collect();
        chart.curve(&measured, MEASURED, false);
        let ideal: Vec<_> = line().map(|(depth, point)| (*depth, ideal(point))).collect();
        chart.curve(&ideal, IDEAL, true);
    }
    chart.legend(&[(MEASURED, "measured"), (IDEAL, &memory_alone(bandwidth))]);
    let mark = |(depth, point): &(f64, &Point)| Mark {
        x: *depth,
        y: point.tokens_per_second,
        label: point.name.clone(),
    };
    chart.marks(&decode.iter().map(mark).collect::<Vec<_>>(), MEASURED);
    Some(chart.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, megabytes: f64, speed: f64, depth: Option<f64>) -> Point {
        Point {
            name: name.to_owned(),
            bytes_per_token: megabytes * MEGABYTE,
            tokens_per_second: speed,
            depth,
            n_parallel: 1,
        }
    }

    /// The value of an attribute of each element of a kind.
    fn attribute<'a>(svg: &'a str, element: &str, name: &str) -> Vec<&'a str> {
        svg.lines()
            .filter(|line| line.starts_with(&format!("<{element} ")))
            .filter_map(|line| line.split_once(&format!(" {name}=\""))?.1.split('"').next())
            .collect()
    }

    fn numbers(svg: &str, element: &str, name: &str) -> Vec<f64> {
        attribute(svg, element, name).into_iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Every tag is closed in its turn, and every attribute is quoted.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("`{piece}` is not closed"));
            assert!(!text.contains('>') && tag.matches('"').count().is_multiple_of(2), "{piece}");
            let name = tag.trim_start_matches('/').split(' ').next();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{svg}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?} in {svg}");
    }

    #[test]
    fn a_test_at_the_memorys_speed_stands_on_the_roof() {
        // 100 MB a token at 10 GB/s are 100 tokens a second; half of that is below the roof.
        let points = [point("tg1", 100.0, 100.0, Some(0.0)), point("tg2", 200.0, 25.0, Some(0.0))];
        let svg = roofline("phi3 <Q4>", &points, 10e9).unwrap_or_default();
        assert_well_formed(&svg);
        let roof = attribute(&svg, "polyline", "points").pop().unwrap_or_default();
        let ends: Vec<f64> = roof.split([' ', ',']).filter_map(|number| number.parse().ok()).collect();
        let [x0, y0, x1, y1] = ends[..] else { panic!("{roof}") };
        let height = |x: f64| y0 + (x - x0) / (x1 - x0) * (y1 - y0);
        let (xs, ys) = (numbers(&svg, "circle", "cx"), numbers(&svg, "circle", "cy"));
        assert_eq!(xs.len(), 2);
        assert!((ys[0] - height(xs[0])).abs() < 0.5, "{svg}");
        assert!(ys[1] > height(xs[1]) + 10.0 && xs[1] > xs[0], "{svg}");
        assert!(svg.contains("MB<") && svg.contains(">tokens a second<") && svg.contains(">tg2<"));
    }

    #[test]
    fn depth_goes_to_the_right_and_speed_up() {
        let points = [
            point("tg8 @ d1000", 300.0, 10.0, Some(1000.0)),
            point("tg8", 200.0, 20.0, Some(0.0)),
            point("pp8", 2.0, 500.0, None),
        ];
        let svg = decode_by_depth("phi3", &points, 10e9).unwrap_or_default();
        assert_well_formed(&svg);
        let (xs, ys) = (numbers(&svg, "circle", "cx"), numbers(&svg, "circle", "cy"));
        assert_eq!(xs.len(), 2, "the prompt is not drawn");
        let [fast, slow] = [0, 1];
        assert!(xs[fast] < xs[slow] && ys[fast] < ys[slow], "{svg}");
        // The axis begins at 0: half the speed is half the height over the bottom.
        let zero = 364.0;
        assert!(((zero - ys[slow]) / (zero - ys[fast]) - 0.5).abs() < 0.01, "{svg}");
    }

    #[test]
    fn no_points_no_chart() {
        assert!(roofline("", &[], 1e9).is_none());
        assert!(decode_by_depth("", &[point("pp8", 2.0, 500.0, None)], 1e9).is_none());
    }
}
