//! The files of an image as one tar archive: in one order, without times and owners.

use std::collections::BTreeMap;
use std::io::Cursor;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// The files of an image by their path, without a slash in front.
#[derive(Debug, Default)]
pub(crate) struct Layer(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Directory,
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
}

impl Layer {
    /// A file that everybody may run.
    pub(crate) fn program(&mut self, path: &str, bytes: &[u8]) {
        self.put(path, Entry::File { mode: 0o755, bytes: bytes.to_owned() });
    }

    /// A file that everybody may read.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.put(path, Entry::File { mode: 0o644, bytes: bytes.to_owned() });
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link { target: target.to_owned() });
    }

    /// A directory.
    pub(crate) fn directory(&mut self, path: &str) {
        self.put(path, Entry::Directory);
    }

    /// With the directories above it.
    fn put(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/') {
            self.0.entry(path[..end].to_owned()).or_insert(Entry::Directory);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// The archive. A directory comes before what is in it, since paths are in order.
    pub(crate) fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(vec![]);
        for (path, entry) in &self.0 {
            let added = match entry {
                Entry::Directory => add(&mut tar, path, EntryType::Directory, 0o755, None, &[]),
                Entry::File { mode, bytes } => {
                    add(&mut tar, path, EntryType::Regular, *mode, None, bytes)
                }
                Entry::Link { target } => {
                    add(&mut tar, path, EntryType::Symlink, 0o777, Some(target), &[])
                }
            };
            added.with_context(|| format!("add {path}"))?;
        }
        tar.into_inner().context("finish the layer")
    }
}

/// Adds one entry that depends on its arguments alone.
pub(crate) fn add(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    target: Option<&str>,
    bytes: &[u8],
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(u64::try_from(bytes.len()).context("the file is too long")?);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    match target {
        Some(target) => tar.append_link(&mut header, path, target)?,
        None => tar.append_data(&mut header, path, Cursor::new(bytes))?,
    }
    Ok(())
}
