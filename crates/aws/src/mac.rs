//! Hardware addresses as EC2 and IMDS write them.

/// `text` in lower case if it is six pairs of hexadecimal digits with colons.
pub(crate) fn parse(text: &str) -> Option<String> {
    let pairs: Vec<&str> = text.split(':').collect();
    let is_pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    (pairs.len() == 6 && pairs.iter().all(is_pair)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hardware_address_is_one() {
        assert_eq!(parse("02:74:B0:72:79:61").as_deref(), Some("02:74:b0:72:79:61"));
        for bad in [
            "",
            "02:74:b0:72:79",
            "02:74:b0:72:79:61:62",
            "02:74:b0:72:79:6g",
            "2:74:b0:72:79:611",
            "é2:74:b0:72:79:6",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
