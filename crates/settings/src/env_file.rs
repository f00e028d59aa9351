//! The file that `TIDEPOOL_ENV_FILE` names, in the form of systemd's `EnvironmentFile=`: a line is
//! `NAME=value`, `NAME="value"`, `NAME='value'`, blank, or a comment that begins with `#`. Within
//! double quotes `\"` and `\\` stand for `"` and `\`; nothing else is expanded, and a value ends with
//! its line.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::misspelt;
use crate::registry::{ALL, Place, Setting, TIDEPOOL_ENV_FILE};

/// Bytes of a file. All settings together have some kilobytes.
const LARGEST: u64 = 1024 * 1024;
/// How much of a wrong name is shown, in characters.
const SHOWN: usize = 100;

/// Why a file of settings is refused, in one line.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// The file cannot be read, or is not UTF-8.
    #[error("read {}, which {} names", .file.display(), TIDEPOOL_ENV_FILE.name)]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is wrong.
    #[error("line {line} of {}: {fault}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It has no `=`.
    #[error("expected NAME=value, a comment or nothing")]
    NoValue,
    /// No setting has that name.
    #[error("{0:?} is no setting of ipamd")]
    UnknownName(String),
    /// No setting has that name, but one has nearly that name.
    #[error("{0:?} is no setting of ipamd; is {1} meant?")]
    Misspelt(String, &'static str),
    /// A setting that only the process's environment can have.
    #[error("{0} can only be set in the environment")]
    NotInFile(&'static str),
    /// An earlier line has the same name.
    #[error("{0} is set by an earlier line too")]
    Twice(&'static str),
    /// A quoted value does not end with its quote, or more follows.
    #[error("expected the value of {0} to end with the quote that it begins with")]
    Quotes(&'static str),
}

/// The settings in `file`, in its order.
pub(crate) fn read(file: &Path) -> Result<Vec<(&'static Setting, String)>, EnvFileError> {
    let text =
        read_text(file).map_err(|source| EnvFileError::Read { file: file.to_owned(), source })?;
    parse(&text).map_err(|(line, fault)| EnvFileError::Line { file: file.to_owned(), line, fault })
}

/// The file's text, within bounds of time and size. A symbolic link is followed, as a `ConfigMap` has them.
fn read_text(file: &Path) -> io::Result<String> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let metadata = fs::metadata(file)?;
    if !metadata.is_file() {
        return refused("it is not a regular file".to_owned());
    }
    if metadata.mode() & 0o002 != 0 {
        return refused("everybody may write to it; take that right away (chmod o-w)".to_owned());
    }
    let mut text = String::new();
    let n_read = File::open(file)?.take(LARGEST + 1).read_to_string(&mut text)?;
    match u64::try_from(n_read) {
        Ok(n_read) if n_read <= LARGEST => Ok(text),
        Ok(_) | Err(_) => refused(format!("it has more than {LARGEST} bytes")),
    }
}

/// The settings in `text`, or the first wrong line, counted from 1.
fn parse(text: &str) -> Result<Vec<(&'static Setting, String)>, (usize, LineFault)> {
    let mut settings: Vec<(&'static Setting, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((setting, value)) = parse_line(line).map_err(|fault| (index + 1, fault))? else {
            continue;
        };
        if settings.iter().any(|(earlier, _)| earlier.name == setting.name) {
            return Err((index + 1, LineFault::Twice(setting.name)));
        }
        settings.push((setting, value));
    }
    Ok(settings)
}

fn parse_line(line: &str) -> Result<Option<(&'static Setting, String)>, LineFault> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or(LineFault::NoValue)?;
    let setting = ALL.iter().find(|setting| setting.name == name);
    let setting = *setting.ok_or_else(|| {
        let shown: String = name.chars().take(SHOWN).collect();
        match misspelt::meant(name) {
            Some(meant) => LineFault::Misspelt(shown, meant.name),
            None => LineFault::UnknownName(shown),
        }
    })?;
    if setting.place == Place::Environment {
        return Err(LineFault::NotInFile(setting.name));
    }
    let value = unquote(value).ok_or(LineFault::Quotes(setting.name))?;
    Ok(Some((setting, value)))
}

/// The value without its quotes, or `None` if they do not match.
fn unquote(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        return rest.strip_suffix('\'').filter(|inner| !inner.contains('\'')).map(str::to_owned);
    }
    let Some(rest) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let mut unquoted = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(unquoted),
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\') => unquoted.push(escaped),
                other => unquoted.extend(['\\', other]),
            },
            other => unquoted.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "\
# The pool.
WARM_IP_TARGET=5

  MINIMUM_IP_TARGET=\"20\"  \n\
ADDITIONAL_ENI_TAGS='{\"team\":\"net\"}'
CLUSTER_NAME=\"a \\\"blue\\\" \\\\ \\one\"
MAX_ENI=
AWS_EC2_ENDPOINT=http://127.0.0.1/?a=b#c
";

    #[test]
    fn env_file_that_never_ends_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long");
        std::fs::write(&long, "#".repeat((1 << 20) + 1)).unwrap();
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for (file, expect) in [
            (&*long, "it has more than 1048576 bytes"),
            (&*fifo, "it is not a regular file"),
            (Path::new("/dev/zero"), "it is not a regular file"),
        ] {
            let error = read(file).unwrap_err();
            assert_eq!(error.source().unwrap().to_string(), expect, "{}", file.display());
        }
    }

    #[test]
    fn misspelt_name_in_the_env_file_is_named() {
        let (line, fault) = parse("# a\nENABLE_IPV6=true").unwrap_err();
        let expect = "\"ENABLE_IPV6\" is no setting of ipamd; is ENABLE_IPv6 meant?";
        assert_eq!((line, &*fault.to_string()), (2, expect));
    }

    #[test]
    fn env_file_with_quotes_and_comments_is_read() {
        let found = parse(GOOD).unwrap();
        let found: Vec<_> = found.iter().map(|(setting, value)| (setting.name, &**value)).collect();
        let expect = [
            ("WARM_IP_TARGET", "5"),
            ("MINIMUM_IP_TARGET", "20"),
            ("ADDITIONAL_ENI_TAGS", r#"{"team":"net"}"#),
            ("CLUSTER_NAME", r#"a "blue" \ \one"#),
            ("MAX_ENI", ""),
            ("AWS_EC2_ENDPOINT", "http://127.0.0.1/?a=b#c"),
        ];
        assert_eq!(found, expect);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn env_file_with_a_wrong_line_names_the_line() {
        let check = |text: &str, line, expect: &str| {
            let (found, fault) = parse(text).unwrap_err();
            assert_eq!((found, &*fault.to_string()), (line, expect), "{text}");
        };
        check("WARM_IP_TARGET", 1, "expected NAME=value, a comment or nothing");
        check(
            "\n\nWARM_IP_TARGE=5",
            3,
            "\"WARM_IP_TARGE\" is no setting of ipamd; is WARM_IP_TARGET meant?",
        );
        check("export MAX_ENI=5", 1, "\"export MAX_ENI\" is no setting of ipamd");
        check("MAX_ENI =5", 1, "\"MAX_ENI \" is no setting of ipamd; is MAX_ENI meant?");
        check("PATH=/bin", 1, "\"PATH\" is no setting of ipamd");
        check("TIDEPOOL_ENV_FILE=/x", 1, "TIDEPOOL_ENV_FILE can only be set in the environment");
        let sdk = "AWS_ENDPOINT_URL can only be set in the environment";
        check("AWS_ENDPOINT_URL=http://a", 1, sdk);
        check("MAX_ENI=1\n# x\nMAX_ENI=2", 3, "MAX_ENI is set by an earlier line too");
        let quotes = "expected the value of MAX_ENI to end with the quote that it begins with";
        for value in ["\"", "'", "\"5", "'5", "\"5\"6", "'5'6'", "\"5\\\"", "\"5' # x"] {
            check(&format!("MAX_ENI={value}"), 1, quotes);
        }
    }

    #[test]
    fn env_file_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("env");
        let error = read(&file).unwrap_err().to_string();
        assert_eq!(error, format!("read {}, which TIDEPOOL_ENV_FILE names", file.display()));
        std::fs::write(&file, b"CLUSTER_NAME=\xff\n").unwrap();
        assert!(matches!(read(&file), Err(EnvFileError::Read { .. })));
        std::fs::write(&file, "\nMAX_ENI\n").unwrap();
        let error = read(&file).unwrap_err().to_string();
        let expect = "expected NAME=value, a comment or nothing";
        assert_eq!(error, format!("line 2 of {}: {expect}", file.display()));
    }

    proptest! {
        /// Settings are read or refused, whatever the file.
        #[test]
        fn fuzz_env_file(document in mangle::hostile(vec![GOOD.as_bytes().to_vec()])) {
            let text = String::from_utf8_lossy(&document.0);
            let lines = text.lines().count();
            match parse(&text) {
                Ok(settings) => {
                    let owned = settings.into_iter().map(|(it, value)| (it.name.to_owned(), value));
                    let _ = crate::Settings::read(&owned.collect());
                }
                Err((line, _)) => prop_assert!((1..=lines).contains(&line)),
            }
        }
    }

    #[test]
    fn file_that_is_endless_or_everybodys_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        let refused = |path: &Path| match read(path).unwrap_err() {
            EnvFileError::Read { source, .. } => source.to_string(),
            EnvFileError::Line { fault, .. } => panic!("{fault}"),
        };
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        for other in [&path, Path::new("/dev/zero"), directory.path()] {
            assert!(refused(other).contains("not a regular file"), "{}", other.display());
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
        assert!(refused(&path).contains("more than 1048576 bytes"));
        std::fs::write(&path, "MAX_ENI=2\n").unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        let everybodys = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, everybodys).unwrap();
        assert!(refused(&path).contains("everybody may write"));
    }
}
