//! Which part of a setting's value nobody but its reader should see.

/// `value` without the password of a URL: `https://user:***@host`. A value without one stays as it is.
#[must_use]
pub fn without_password(value: &str) -> String {
    let hidden = || {
        let start = value.find("://")? + 3;
        let authority = &value[start..];
        let authority = &authority[..authority.find(['/', '?', '#']).unwrap_or(authority.len())];
        // A password may contain an `@` that nobody has encoded.
        let (user_info, host) = authority.rsplit_once('@')?;
        let user = user_info.split_once(':').map(|(user, _)| format!("{user}:***"));
        // What stands alone before the `@` may be a token.
        let user = user.unwrap_or_else(|| "***".to_owned());
        let rest = &value[start + authority.len()..];
        Some(format!("{}{user}@{host}{rest}", &value[..start]))
    };
    hidden().unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_its_password() {
        for (value, expect) in [
            ("https://user:secret@proxy:3128/path?a=b", "https://user:***@proxy:3128/path?a=b"),
            ("http://user:se@cret@host", "http://user:***@host"),
            ("http://token@host#x", "http://***@host#x"),
            ("http://user:secret@", "http://user:***@"),
            ("http://host/a@b:c", "http://host/a@b:c"),
            ("http://host:80", "http://host:80"),
            ("user@host", "user@host"),
            ("7", "7"),
            ("", ""),
        ] {
            assert_eq!(without_password(value), expect);
        }
    }
}
