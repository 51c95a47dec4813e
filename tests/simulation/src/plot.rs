//! Lines over time as SVG that needs nothing else: panels one below the other,
//! with the same axes.

use std::fmt::Write as _;
use std::process::ExitCode;

/// Pixels: of a panel's axes, around them, and of the legend.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 130.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const ABOVE: f64 = 34.0;
const LEGEND: f64 = 54.0;
const BELOW: f64 = 44.0;

const SHADE: &str = "#e8e4dc";
const GRID: &str = "\"#ddd\"";
const LEVEL: &str = "\"#777\" stroke-dasharray=\"4 3\"";

/// What a command does that draws a plot: its arguments are a seed and a file,
/// else the one of that name in the documentation. `report` makes the plot and
/// the figures, which are printed.
pub fn draw(name: &str, seed: u64, report: impl FnOnce(u64) -> (String, String)) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().map_or(Ok(seed), |seed| seed.parse());
    let Ok(seed) = seed else {
        eprintln!("usage: {name}-plot [SEED [FILE]]");
        return ExitCode::from(2);
    };
    let plots = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plots");
    let documented = || format!("{plots}/{name}.svg");
    let path = arguments.next().unwrap_or_else(documented);
    let (svg, table) = report(seed);
    if let Err(error) = std::fs::write(&path, svg) {
        eprintln!("cannot write {path}: {error}");
        return ExitCode::FAILURE;
    }
    print!("{table}");
    ExitCode::SUCCESS
}

/// Panels.
#[derive(Debug)]
pub struct Plot {
    /// What it shows; read aloud where it cannot be seen.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis of each panel.
    pub y: Axis,
    /// A part of the horizontal axis that is told apart, and what it is.
    pub shaded: (f64, f64, String),
    /// A value of the vertical axis that is marked, and what it is.
    pub level: (f64, String),
    /// From above.
    pub panels: Vec<Panel>,
}

/// An axis from zero.
#[derive(Debug)]
pub struct Axis {
    /// What is on it, with its unit.
    pub label: String,
    /// Where it ends.
    pub most: f64,
    /// From one tick to the next.
    pub step: f64,
}

/// Lines between the same axes.
#[derive(Debug)]
pub struct Panel {
    /// What it is called.
    pub title: String,
    /// Lines; those of the first panel make the legend.
    pub lines: Vec<Line>,
}

/// A line.
#[derive(Debug)]
pub struct Line {
    /// What it is called.
    pub name: String,
    /// As CSS has it.
    pub colour: String,
    /// Values at the same distance from each other, from zero to the end.
    pub values: Vec<f64>,
}

impl Plot {
    /// The same bytes for the same plot.
    pub fn svg(&self) -> String {
        let width = LEFT + WIDTH + RIGHT;
        let height = LEGEND + (ABOVE + HEIGHT) * self.panels.len() as f64 + BELOW;
        let title = &self.title;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"system-ui,sans-serif\" \
             font-size=\"12\" fill=\"#222\" role=\"img\" aria-label=\"{title}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n"
        );
        self.legend(&mut svg);
        let mut top = LEGEND;
        for panel in &self.panels {
            top += ABOVE;
            self.panel(panel, top, &mut svg);
            top += HEIGHT;
        }
        for tick in self.x.ticks() {
            let x = self.x_of(tick);
            text(&mut svg, (x, top + 16.0), "middle", &tick.to_string());
        }
        let middle = LEFT + WIDTH / 2.0;
        text(&mut svg, (middle, top + 36.0), "middle", &self.x.label);
        svg.push_str("</svg>\n");
        svg
    }

    fn legend(&self, svg: &mut String) {
        let y = 42.0;
        let mut x = LEFT;
        let mut entry = |svg: &mut String, mark: &dyn Fn(f64) -> String, name: &str| {
            let _ = writeln!(svg, "{}", mark(x));
            text(svg, (x + 28.0, y), "start", name);
            // An average letter, a mark, and a gap.
            x += name.len() as f64 * 6.3 + 52.0;
        };
        for line in self.panels.first().iter().flat_map(|panel| &panel.lines) {
            let stroke = format!("\"{}\" stroke-width=\"2\"", line.colour);
            let mark = |x| rule((x, y - 4.0), (x + 22.0, y - 4.0), &stroke);
            entry(svg, &mark, &line.name);
        }
        let mark = |x| rule((x, y - 4.0), (x + 22.0, y - 4.0), LEVEL);
        entry(svg, &mark, &self.level.1);
        let mark = |x| rectangle((x, y - 11.0), (22.0, 14.0), SHADE);
        entry(svg, &mark, &self.shaded.2);
    }

    fn panel(&self, panel: &Panel, top: f64, svg: &mut String) {
        let y_of = |value: f64| top + HEIGHT * (1.0 - value / self.y.most);
        let (left, right) = (LEFT, LEFT + WIDTH);
        let (from, to) = (self.x_of(self.shaded.0), self.x_of(self.shaded.1));
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n{}",
            top - 9.0,
            panel.title,
            rectangle((from, top), (to - from, HEIGHT), SHADE)
        );
        for tick in self.y.ticks() {
            let y = y_of(tick);
            let _ = writeln!(svg, "{}", rule((left, y), (right, y), GRID));
            text(svg, (left - 8.0, y + 4.0), "end", &tick.to_string());
        }
        let (x, y) = (16.0, top + HEIGHT / 2.0);
        let _ = writeln!(
            svg,
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.y.label
        );
        let level = y_of(self.level.0);
        let _ = writeln!(svg, "{}", rule((left, level), (right, level), LEVEL));
        for line in &panel.lines {
            let step = WIDTH / line.values.len() as f64;
            let points = line.values.iter().enumerate().map(|(index, value)| {
                let x = LEFT + (index as f64 + 0.5) * step;
                format!("{x:.1},{:.1}", y_of(*value))
            });
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"{}\"/>",
                line.colour,
                points.collect::<Vec<_>>().join(" ")
            );
        }
    }

    fn x_of(&self, value: f64) -> f64 {
        LEFT + WIDTH * value / self.x.most
    }
}

impl Axis {
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let ticks = (self.most / self.step) as u32;
        (0..=ticks).map(|tick| f64::from(tick) * self.step)
    }
}

/// Writing to a String does not fail.
fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

/// `stroke` is its colour and whatever else SVG says of a line.
fn rule(from: (f64, f64), to: (f64, f64), stroke: &str) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke={stroke}/>",
        from.0, from.1, to.0, to.1
    )
}

fn rectangle((x, y): (f64, f64), (width, height): (f64, f64), colour: &str) -> String {
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    )
}
