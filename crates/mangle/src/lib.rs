//! For tests: damaged documents, as bad disks, bugs and attackers produce them.
//!
//! [`hostile`] damages good documents. So many results pass the reader's first checks. This crate
//! must not know what the documents mean.

use std::fmt;
use std::ops::Deref;

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Text to insert: delimiters, limits and special values of the formats that we read.
const TOKENS: &[&str] = &[
    "",
    "\0",
    "\n",
    "\r\n",
    " ",
    "\t",
    "null",
    "true",
    "0",
    "-1",
    "+1",
    "1e999",
    "255",
    "65536",
    "2147483648",
    "18446744073709551615",
    "18446744073709551616",
    "0.0.0.0/0",
    "255.255.255.255",
    "::",
    "::ffff:10.0.0.1",
    "é",
    "\u{202e}",
    "\u{feff}",
    "\\ud800",
    "%",
    "%00",
    "%zz",
    "&",
    "=",
    ";",
    "/",
    "//",
    "..",
    ".1",
    ".4294967295",
    "\"",
    "'",
    "{",
    "}",
    "{}",
    "[",
    "]",
    "[]",
    ",",
    ":",
    "- ",
    "#",
    "*a",
    "&a ",
    "!!binary ",
    "<<: ",
    "|",
];

/// A document. `Debug` prints it as a byte string literal.
#[derive(Clone, PartialEq, Eq)]
pub struct Document(pub Vec<u8>);

impl Document {
    /// Applies `damages` in order.
    #[must_use]
    pub fn damaged(mut self, damages: &[Damage]) -> Self {
        damages.iter().for_each(|damage| damage.apply(&mut self.0));
        self
    }
}

impl Deref for Document {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// One damage of a document. Positions are taken modulo its length.
#[derive(Debug, Clone)]
pub enum Damage {
    /// Flips a bit.
    Flip {
        /// The byte.
        at: Index,
        /// 0 to 7.
        bit: u8,
    },
    /// Truncates the document here.
    Cut(Index),
    /// Zeroes a range, as some file systems do after a crash.
    Zero {
        /// First byte.
        from: Index,
        /// One after the last byte; no effect if it is before the first.
        to: Index,
    },
    /// Removes a range.
    Remove {
        /// First byte.
        from: Index,
        /// One after the last byte; no effect if it is before the first.
        to: Index,
    },
    /// Inserts copies of a range at another position.
    Repeat {
        /// First byte.
        from: Index,
        /// One after the last byte; no effect if it is before the first.
        to: Index,
        /// The position of the copies.
        at: Index,
        /// The number of copies, 1 to 40.
        times: u8,
    },
    /// Inserts bytes.
    Insert {
        /// The position.
        at: Index,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl Damage {
    fn apply(&self, document: &mut Vec<u8>) {
        let place = |index: &Index| index.index(document.len() + 1);
        match self {
            Damage::Flip { at, bit } => {
                let at = place(at);
                if let Some(byte) = document.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Damage::Cut(at) => {
                let at = place(at);
                document.truncate(at);
            }
            Damage::Zero { from, to } => {
                let (from, to) = (place(from), place(to));
                document.get_mut(from..to).unwrap_or_default().fill(0);
            }
            Damage::Remove { from, to } => {
                let (from, to) = (place(from), place(to));
                drop(document.drain(from.min(to)..to));
            }
            Damage::Repeat { from, to, at, times } => {
                let (from, to, at) = (place(from), place(to), place(at));
                let stretch = document[from.min(to)..to].repeat(usize::from(*times));
                document.splice(at..at, stretch);
            }
            Damage::Insert { at, bytes } => {
                let at = place(at);
                document.splice(at..at, bytes.iter().copied());
            }
        }
    }
}

/// Any damage.
pub fn damage() -> impl Strategy<Value = Damage> {
    let stretch = || any::<(Index, Index)>();
    let bytes = prop_oneof![
        4 => select(TOKENS).prop_map(|token| token.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..16),
    ];
    prop_oneof![
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        2 => any::<Index>().prop_map(Damage::Cut),
        1 => stretch().prop_map(|(from, to)| Damage::Zero { from, to }),
        2 => stretch().prop_map(|(from, to)| Damage::Remove { from, to }),
        2 => (stretch(), any::<Index>(), 1..40_u8)
            .prop_map(|((from, to), at, times)| Damage::Repeat { from, to, at, times }),
        6 => (any::<Index>(), bytes).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
    ]
}

/// One of the `good` documents with up to five damages, or sometimes random bytes. `good` must not
/// be empty.
pub fn hostile(good: Vec<Vec<u8>>) -> impl Strategy<Value = Document> {
    let damaged = (select(good), prop::collection::vec(damage(), 0..6))
        .prop_map(|(document, damages)| Document(document).damaged(&damages));
    prop_oneof![
        9 => damaged,
        1 => prop::collection::vec(any::<u8>(), 0..512).prop_map(Document),
    ]
}
