//! A writer of SVG: rectangles with titles, texts, and the styles of the map. It must not know what they stand for.

use std::fmt::Write as _;

/// Where a rectangle is, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Box2 {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Fills go from light to dark, so that they differ in grey too.
const STYLE: &str = "\
text{font-family:sans-serif;fill:#1f2937}
.title{font-size:22px;font-weight:bold}.heading{font-size:15px;font-weight:bold}
.label{font-size:12px}.small{font-size:12px}.tiny{font-size:9px;fill:#6b7280}
.light{font-size:12px;fill:#fff}.alarm{font-size:12px;font-weight:bold;fill:#b91c1c}
.space{fill:#f3f4f6;stroke:#9ca3af}.use0{fill:#dbeafe;stroke:#fff}.use1{fill:#93c5fd;stroke:#fff}
.use2{fill:#3b82f6;stroke:#fff}.use3{fill:#1d4ed8;stroke:#fff}.cell4{fill:#172554;stroke:#fff}
.near{fill:url(#dots);stroke:#92400e}.full{fill:url(#stripes);stroke:#7f1d1d;stroke-width:2}
.hatched{fill:url(#hatch);stroke:#b91c1c}.edge{fill:none;stroke:#b91c1c;stroke-width:3;pointer-events:none}
";

const PATTERNS: &str = r##"<pattern id="dots" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" fill="#b45309"/><circle cx="4" cy="4" r="1.6" fill="#fde68a"/></pattern>
<pattern id="stripes" width="9" height="9" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="9" height="9" fill="#7f1d1d"/><rect width="3" height="9" fill="#dc2626"/></pattern>
<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect width="2" height="7" fill="#b91c1c"/></pattern>
"##;

/// A picture that grows downwards.
#[derive(Debug)]
pub(super) struct Svg {
    width: u32,
    body: String,
}

impl Svg {
    pub(super) fn new(width: u32) -> Self {
        Self { width, body: String::new() }
    }

    /// A rectangle. `title` is what a pointer over it and a screen reader say.
    pub(super) fn rect(&mut self, place: Box2, class: &str, title: &str) {
        let Box2 { x, y, width, height } = place;
        let title = escaped(title);
        self.line(&format!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" class="{class}"><title>{title}</title></rect>"#
        ));
    }

    pub(super) fn text(&mut self, x: u32, y: u32, class: &str, text: &str) {
        let text = escaped(text);
        self.line(&format!(r#"<text x="{x}" y="{y}" class="{class}">{text}</text>"#));
    }

    /// The whole document.
    pub(super) fn finish(self, title: &str, about: &str, height: u32) -> String {
        let Self { width, body } = self;
        let (title, about) = (escaped(title), escaped(about));
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title about">
<title id="title">{title}</title>
<desc id="about">{about}</desc>
<style>{STYLE}</style>
<defs>
{PATTERNS}</defs>
<rect width="{width}" height="{height}" fill="white"/>
{body}</svg>
"#
        )
    }

    fn line(&mut self, text: &str) {
        writeln!(self.body, "{text}").expect("a String takes everything");
    }
}

/// `text` as XML may have it: names come from tags that anybody may set.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML has no way to write most of them.
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}')
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_cannot_leave_their_place() {
        assert_eq!(
            escaped("</text><script>\u{1b}&\"a"),
            "&lt;/text&gt;&lt;script&gt;\u{fffd}&amp;&quot;a"
        );
    }
}
