//! Draws a plot as SVG, by hand: axes with marks, a line with a name for each thing, a dot with its value for each
//! measurement.

use std::fmt::Write as _;

use super::axis::Marks;
use super::{Line, Plot};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Around the field in which lines are drawn: left, right, top, bottom.
const MARGINS: [f64; 4] = [78.0, 168.0, 52.0, 58.0];
/// Between the axis and the first value across, and after the last.
const ROOM: f64 = 18.0;
/// Names at the ends of lines are at least so far apart.
const NAME_HEIGHT: f64 = 16.0;
/// Colours that everybody can tell apart (Okabe, Ito).
const COLOURS: [&str; 4] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"];

/// The picture.
pub(super) fn draw(plot: &Plot) -> String {
    let all = || plot.lines.iter().flat_map(|line| line.points.iter());
    let field = Field {
        across: Marks::measured(plot.across.scale, all().map(|point| point.0)),
        up: Marks::round(plot.up.scale, all().map(|point| point.1)),
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n",
        escaped(&plot.title)
    );
    text(&mut svg, (MARGINS[0], 28.0), "font-size=\"15\" font-weight=\"bold\"", &plot.title);
    draw_axes(&mut svg, plot, &field);
    for (line, colour) in plot.lines.iter().zip(COLOURS.iter().cycle()) {
        draw_line(&mut svg, plot, line, &field, colour);
    }
    draw_names(&mut svg, plot, &field);
    svg.push_str("</svg>\n");
    svg
}

/// The field in which lines are drawn.
struct Field {
    across: Marks,
    up: Marks,
}

impl Field {
    const LEFT: f64 = MARGINS[0];
    const RIGHT: f64 = WIDTH - MARGINS[1];
    const TOP: f64 = MARGINS[2];
    const BOTTOM: f64 = HEIGHT - MARGINS[3];

    fn x(&self, value: f64) -> f64 {
        let (first, last) = (Self::LEFT + ROOM, Self::RIGHT - ROOM);
        first + self.across.place(value) * (last - first)
    }

    fn y(&self, value: f64) -> f64 {
        Self::BOTTOM - self.up.place(value) * (Self::BOTTOM - Self::TOP)
    }
}

fn draw_axes(svg: &mut String, plot: &Plot, field: &Field) {
    for mark in &field.up.values {
        let y = field.y(*mark);
        rule(svg, (Field::LEFT, y), (Field::RIGHT, y), "#ddd");
        text(svg, (Field::LEFT - 8.0, y + 4.0), "text-anchor=\"end\"", &(plot.up.format)(*mark));
    }
    for mark in &field.across.values {
        let x = field.x(*mark);
        rule(svg, (x, Field::BOTTOM), (x, Field::BOTTOM + 5.0), "#333");
        text(svg, (x, Field::BOTTOM + 20.0), "text-anchor=\"middle\"", &(plot.across.format)(*mark));
    }
    rule(svg, (Field::LEFT, Field::BOTTOM), (Field::RIGHT, Field::BOTTOM), "#333");
    let middle = f64::midpoint(Field::LEFT, Field::RIGHT);
    text(svg, (middle, HEIGHT - 14.0), "text-anchor=\"middle\"", plot.across.label);
    text(svg, (Field::LEFT, Field::TOP - 8.0), "text-anchor=\"end\"", plot.up.label);
}

fn draw_line(svg: &mut String, plot: &Plot, line: &Line, field: &Field, colour: &str) {
    let places: Vec<_> =
        line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", field.x(*x), field.y(*y))).collect();
    // Writing into a string does not fail.
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        places.join(" ")
    );
    for (x, y) in &line.points {
        let value = format!("{}: {} at {}", line.name, (plot.up.format)(*y), (plot.across.format)(*x));
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{}</title></circle>",
            field.x(*x),
            field.y(*y),
            escaped(&value)
        );
    }
}

/// Each name where its line ends, moved down as far as another one needs the place.
fn draw_names(svg: &mut String, plot: &Plot, field: &Field) {
    let end = |line: &Line| line.points.last().map_or(Field::BOTTOM, |(_, y)| field.y(*y));
    let mut names: Vec<_> = plot.lines.iter().zip(COLOURS.iter().cycle()).collect();
    names.sort_by(|a, b| end(a.0).total_cmp(&end(b.0)));
    let mut lowest = f64::NEG_INFINITY;
    for (line, colour) in names {
        let y = end(line).max(lowest + NAME_HEIGHT);
        lowest = y;
        text(svg, (Field::RIGHT + 4.0, y + 4.0), &format!("fill=\"{colour}\""), line.name);
    }
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), attributes: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" {attributes}>{}</text>", at.0, at.1, escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plots::{Axis, Scale};

    #[test]
    fn every_measurement_is_in_the_picture() {
        let axis = |label, scale| Axis { label, scale, format: |value| value.to_string() };
        let line = |name, factor: f64| Line { name, points: vec![(1.0, factor), (1_000.0, factor * 90.0)] };
        let plot = Plot {
            name: "plot",
            title: "a < b & c".to_owned(),
            across: axis("rows", Scale::Logarithmic),
            up: axis("s", Scale::Logarithmic),
            lines: vec![line("ours", 3.0), line("limit", 3.0)],
        };
        let svg = draw(&plot);
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 4));
        assert!(svg.contains("a &lt; b &amp; c") && !svg.contains("NaN") && svg.ends_with("</svg>\n"));
        let number = |circle: &str, name: &str| -> f64 {
            circle.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap().parse().unwrap()
        };
        for circle in svg.split("<circle").skip(1) {
            assert!((0.0..=WIDTH).contains(&number(circle, "cx")));
            assert!((0.0..=HEIGHT).contains(&number(circle, "cy")));
        }
        let heights: Vec<_> =
            svg.split("<text").filter(|text| text.contains("fill=")).map(|text| number(text, " y")).collect();
        assert!((heights[1] - heights[0]).abs() >= NAME_HEIGHT, "names do not overlap: {heights:?}");
    }
}
