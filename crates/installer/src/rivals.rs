//! Network configurations of others that the runtime takes in place of ours.

use std::fs;
use std::io;
use std::path::Path;

/// What runtimes load, by the end of the name. Source: libcni, `ConfFiles`, as containerd and CRI-O call it.
const LOADED: [&str; 3] = ["conf", "conflist", "json"];
/// No directory of network configurations has more files.
const MOST: usize = 10_000;

/// The configuration in `directory` that a runtime finds before `name`, since it sorts before it. `None` if there is
/// none.
///
/// # Errors
///
/// If the directory cannot be listed.
pub fn earlier(directory: &Path, name: &str) -> io::Result<Option<String>> {
    let mut first: Option<String> = None;
    for entry in fs::read_dir(directory)?.take(MOST) {
        let entry = entry?;
        let Ok(found) = entry.file_name().into_string() else { continue };
        let is_loaded = Path::new(&found)
            .extension()
            .is_some_and(|end| LOADED.iter().any(|loaded| end == *loaded));
        let is_earlier = found.as_str() < first.as_deref().unwrap_or(name);
        if is_loaded && is_earlier && !entry.path().is_dir() {
            first = Some(found);
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_configuration_is_the_first_that_a_runtime_loads() {
        let check = |names: &[&str], expect: Option<&str>| {
            let directory = tempfile::tempdir().unwrap();
            for name in names {
                fs::write(directory.path().join(name), "{}").unwrap();
            }
            let found = earlier(directory.path(), "10-aws.conflist").unwrap();
            assert_eq!(found.as_deref(), expect, "{names:?}");
        };
        check(&[], None);
        check(&["10-aws.conflist"], None);
        check(&["10-aws.conflist", "87-podman.conflist", "99-loopback.conf"], None);
        check(&["05-cilium.conflist", "10-aws.conflist"], Some("05-cilium.conflist"));
        check(&["10-a.json", "05-b.conf", "00-c.conflist"], Some("00-c.conflist"));
        // A backup, a temporary file, and a name without an ending.
        check(&["05-cilium.conflist.bak", ".10-aws.conflist.new", "00"], None);
        // Upper case sorts before lower case, as bytes do.
        check(&["10-Z.conflist"], Some("10-Z.conflist"));
    }

    #[test]
    fn directory_that_is_missing_is_an_error() {
        let missing = tempfile::tempdir().unwrap().path().join("net.d");
        assert_eq!(earlier(&missing, "x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
