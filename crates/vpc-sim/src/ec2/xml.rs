//! Writes the XML of the EC2 Query protocol.
//!
//! This module knows elements, item lists and escaping. It must not know any EC2 operation.

use std::fmt::{Display, Write};

use quick_xml::escape::escape;

/// A document that is filled element by element.
#[derive(Debug)]
pub(super) struct Xml {
    text: String,
}

impl Xml {
    /// A document with root `name` and the content that `fill` writes. `attributes` must be valid
    /// XML and may be empty.
    pub(super) fn document(name: &str, attributes: &str, fill: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self { text: r#"<?xml version="1.0" encoding="UTF-8"?>"#.to_owned() };
        xml.push(format_args!("\n<{name}{attributes}>"));
        fill(&mut xml);
        xml.push(format_args!("</{name}>"));
        xml.text
    }

    /// `<name>value</name>`, with the value escaped.
    pub(super) fn text(&mut self, name: &str, value: impl Display) {
        self.push(format_args!("<{name}>{}</{name}>", escape(value.to_string())));
    }

    /// As [`Xml::text`]. Writes nothing for `None`.
    pub(super) fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// `<name>…</name>` around the content that `fill` writes.
    pub(super) fn node(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.push(format_args!("<{name}>"));
        fill(self);
        self.push(format_args!("</{name}>"));
    }

    /// `<name><item>…</item>…</name>`, one item per element of `items`; `<name></name>` if there
    /// are none.
    pub(super) fn set<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) {
        self.node(name, |set| {
            for item in items {
                set.node("item", |node| fill(node, item));
            }
        });
    }

    /// As [`Xml::set`], for items of plain text.
    pub(super) fn texts(&mut self, name: &str, items: impl IntoIterator<Item = impl Display>) {
        self.node(name, |set| {
            for item in items {
                set.text("item", item);
            }
        });
    }

    fn push(&mut self, part: std::fmt::Arguments<'_>) {
        self.text.write_fmt(part).expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_nested_and_escaped() {
        let got = Xml::document("Root", r#" xmlns="x""#, |xml| {
            xml.text("a", "<&>\"");
            xml.optional("absent", None::<u8>);
            xml.optional("b", Some(true));
            xml.set("set", [1, 2], |item, n| item.text("n", n));
            xml.texts("words", ["x"]);
            xml.texts("none", [0_u8; 0]);
        });
        let want = concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Root xmlns=\"x\">",
            "<a>&lt;&amp;&gt;&quot;</a><b>true</b>",
            "<set><item><n>1</n></item><item><n>2</n></item></set>",
            "<words><item>x</item></words><none></none></Root>"
        );
        assert_eq!(got, want);
    }
}
