//! A page with diagrams: one file, nothing loaded from elsewhere, light and dark.

use super::{
    diagram::{Arrow, Diagram, Note, Row, micros},
    text::heading,
};

/// Pixels between participants, for the time, and between rows.
const CELL: usize = 170;
const TIME: usize = 90;
const ROW: usize = 26;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--faint:#999;--bad:#b00020;--mark:#0b57d0}\
@media(prefers-color-scheme:dark){:root{--ink:#eee;--paper:#16181c;--faint:#777;--bad:#ff8a80;\
--mark:#8ab4f8}}body{font:14px system-ui,sans-serif;color:var(--ink);background:var(--paper);\
margin:1rem}h2{font-size:1rem}svg{max-width:100%;height:auto}text{fill:var(--ink);font:12px \
system-ui,sans-serif}line{stroke:var(--faint)}.arrow{stroke:var(--mark);stroke-width:1.5}\
.bad{fill:var(--bad)}.lost{stroke:var(--bad);stroke-dasharray:5 4}.time{fill:var(--faint)}\
.tip{fill:var(--mark)}";

/// The page.
#[must_use]
pub fn page(diagrams: &[Diagram]) -> String {
    let body: String = diagrams.iter().map(figure).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>dynamo flow</title>\
         <style>{STYLE}</style></head><body>{body}</body></html>\n"
    )
}

fn figure(diagram: &Diagram) -> String {
    let heading = escaped(heading(diagram).trim_end());
    let missing: String =
        diagram.missing.iter().map(|what| format!("<p>missing: {}</p>", escaped(what))).collect();
    format!("<h2>{heading}</h2>{}{missing}", svg(diagram))
}

/// A diagram as an SVG element.
#[must_use]
pub fn svg(diagram: &Diagram) -> String {
    let width = TIME + CELL * diagram.columns.len() + CELL / 2;
    let height = ROW * (diagram.rows.len() + 3);
    let x = |column: usize| TIME + CELL * column + CELL / 2;
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{}\">",
        escaped(&diagram.title)
    );
    for (at, column) in diagram.columns.iter().enumerate() {
        let (x, label) = (x(at), escaped(&column.label));
        out.push_str(&format!(
            "<text x=\"{x}\" y=\"18\" text-anchor=\"middle\">{label}</text>\
             <line x1=\"{x}\" y1=\"{ROW}\" x2=\"{x}\" y2=\"{height}\"/>"
        ));
    }
    for (row, at) in diagram.rows.iter().zip(2..) {
        let y = ROW * at;
        let (time, drawn) = match row {
            Row::Arrow(arrow) => (arrow.at, draw_arrow(arrow, x(arrow.from), x(arrow.to), y)),
            Row::Note(note) => (note.at, draw_note(note, x(note.column), y)),
        };
        let time = micros(time);
        out.push_str(&format!("<text class=\"time\" x=\"4\" y=\"{y}\">{time}</text>{drawn}"));
    }
    out.push_str("</svg>");
    out
}

fn draw_arrow(arrow: &Arrow, from: usize, to: usize, y: usize) -> String {
    let lost = arrow.travel.is_none();
    let end = if lost { from.midpoint(to) } else { to };
    let class = if lost { "arrow lost" } else { "arrow" };
    let tip = match (lost, from < to) {
        (true, _) => format!("<text class=\"bad\" x=\"{end}\" y=\"{}\">✕</text>", y + 4),
        (false, true) => triangle(to, to - 8, y),
        (false, false) => triangle(to, to + 8, y),
    };
    let why = if lost { format!(", {}", arrow.lost) } else { String::new() };
    let label = escaped(&format!("{}{why}", arrow.label));
    let middle = from.midpoint(to);
    format!(
        "<line class=\"{class}\" x1=\"{from}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\"/>{tip}\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
        y - 5
    )
}

fn triangle(tip: usize, back: usize, y: usize) -> String {
    let (above, below) = (y - 4, y + 4);
    format!("<polygon class=\"tip\" points=\"{tip},{y} {back},{above} {back},{below}\"/>")
}

fn draw_note(note: &Note, x: usize, y: usize) -> String {
    let class = if note.bad { " class=\"bad\"" } else { "" };
    let label = escaped(&note.label);
    format!(
        "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\"/><text{class} x=\"{}\" y=\"{}\">{label}</text>",
        x + 8,
        y + 4
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
