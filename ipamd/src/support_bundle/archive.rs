//! The bundle as a file: a tar.gz that is there whole or not at all, and that root alone can read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::contents::Part;

/// The folder in the archive.
const FOLDER: &str = "tidepool-support";

/// Writes the parts that have content to `to`; `-` is standard output.
pub(super) fn write(parts: &[Part], to: &Path) -> anyhow::Result<()> {
    let bytes = pack(parts).context("pack the bundle")?;
    if to == Path::new("-") {
        return io::stdout().write_all(&bytes).context("print the bundle");
    }
    replace(to, &bytes).with_context(|| format!("write {}", to.display()))
}

fn pack(parts: &[Part]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for Part { name, content, .. } in parts {
        let Ok(text) = content else { continue };
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

/// Writes a new file beside `to`, and puts it in its place once it is on disk.
fn replace(to: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = beside(to)?;
    // `create_new` follows no link that somebody else has put there.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let replaced = written.and_then(|()| fs::rename(&unfinished, to));
    if replaced.is_err() {
        // The first fault counts.
        let _ = fs::remove_file(&unfinished);
    }
    replaced
}

fn beside(to: &Path) -> io::Result<PathBuf> {
    let name = to.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}", std::process::id()));
    Ok(to.with_file_name(unfinished))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn bundle_is_roots_alone_and_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("bundle.tar.gz");
        fs::write(&to, "an earlier one").unwrap();
        write(&[Part::whole("about.txt", "text".to_owned())], &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o600);
        let unpacked = flate2::read::GzDecoder::new(File::open(&to).unwrap());
        let mut archive = tar::Archive::new(unpacked);
        let paths: Vec<_> =
            archive.entries().unwrap().map(|it| it.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(paths, [Path::new("tidepool-support/about.txt")]);
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing unfinished is left");
        let missing = directory.path().join("none/bundle.tar.gz");
        assert!(write(&[], &missing).is_err() && !missing.exists());
        // A folder is in the way of the rename.
        fs::create_dir_all(directory.path().join("folder/full")).unwrap();
        assert!(write(&[], &directory.path().join("folder")).is_err());
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "nothing unfinished is left"
        );
    }
}
