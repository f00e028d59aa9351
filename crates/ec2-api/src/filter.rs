//! Filters of the Describe operations: their names, the values that they compare, wildcard
//! matching.

use crate::error::ApiError;
use crate::tag::Tags;

/// `Filter.N`. All filters must match; of a filter's values, one must.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// `vpc-id`, `tag:<key>`, …
    pub name: String,
    /// Patterns: `*` and `?` are wildcards, `\` makes the next character literal.
    pub values: Vec<String>,
}

/// EC2's limit on the filter values of one call.
const MAX_VALUES: usize = 200;

/// Reads the values of an item that one filter compares.
pub type Getter<T> = fn(&T) -> Vec<String>;

/// The filters of one operation.
#[derive(Debug)]
pub struct Filters<T: 'static> {
    /// Each name, and the values of an item that it compares.
    pub by_name: &'static [(&'static str, Getter<T>)],
    /// The tags of an item, for `tag:<key>` and `tag-key`.
    pub tags: Option<fn(&T) -> &Tags>,
}

impl<T> Filters<T> {
    /// Keeps the items that match all filters.
    ///
    /// # Errors
    /// If a filter is unknown, even if there are no items, or if there are too many values.
    pub fn apply(&self, items: Vec<T>, filters: &[Filter]) -> Result<Vec<T>, ApiError> {
        if filters.iter().map(|filter| filter.values.len()).sum::<usize>() > MAX_VALUES {
            let text = "The maximum number of filter values specified on a single call is 200";
            return Err(ApiError::new("FilterLimitExceeded", text));
        }
        let mut items = items;
        for filter in filters {
            let values = self.values(&filter.name)?;
            items.retain(|item| values.of(item).iter().any(|value| filter.matches(value)));
        }
        Ok(items)
    }

    fn values<'a>(&self, name: &'a str) -> Result<Values<'a, T>, ApiError> {
        if let Some((_, getter)) = self.by_name.iter().find(|(known, _)| *known == name) {
            return Ok(Values::Getter(*getter));
        }
        match (self.tags, name.strip_prefix("tag:")) {
            (Some(tags), Some(key)) => Ok(Values::Tag(tags, key)),
            (Some(tags), None) if name == "tag-key" => Ok(Values::TagKeys(tags)),
            _ => Err(ApiError::parameter_value(format!("The filter '{name}' is invalid"))),
        }
    }
}

/// The values that one filter compares.
enum Values<'a, T> {
    Getter(Getter<T>),
    Tag(fn(&T) -> &Tags, &'a str),
    TagKeys(fn(&T) -> &Tags),
}

impl<T> Values<'_, T> {
    fn of(&self, item: &T) -> Vec<String> {
        match self {
            Self::Getter(getter) => getter(item),
            Self::Tag(tags, key) => tags(item).get(*key).cloned().into_iter().collect(),
            Self::TagKeys(tags) => tags(item).keys().cloned().collect(),
        }
    }
}

impl Filter {
    /// Whether one of the patterns matches.
    pub fn matches(&self, value: &str) -> bool {
        self.values.iter().any(|pattern| matches(pattern, value))
    }
}

/// Whether `value` matches `pattern`. `*` stands for any text, `?` for any character, and a
/// backslash makes the next character literal.
fn matches(pattern: &str, value: &str) -> bool {
    let pattern = tokens(pattern);
    let value: Vec<char> = value.chars().collect();
    let (mut p, mut v) = (0, 0);
    // Where to continue if the text after the last star does not match: one character later.
    let mut retry: Option<(usize, usize)> = None;
    while v < value.len() {
        match pattern.get(p) {
            Some(Token::Any) => {
                retry = Some((p + 1, v));
                p += 1;
            }
            Some(token) if token.fits(value[v]) => (p, v) = (p + 1, v + 1),
            _ => {
                let Some((after_star, from)) = retry else { return false };
                retry = Some((after_star, from + 1));
                (p, v) = (after_star, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|token| *token == Token::Any)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Any,
    One,
    Literal(char),
}

impl Token {
    fn fits(self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Literal(literal) => literal == c,
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut chars = pattern.chars();
    std::iter::from_fn(|| match chars.next()? {
        '*' => Some(Token::Any),
        '?' => Some(Token::One),
        '\\' => Some(Token::Literal(chars.next().unwrap_or('\\'))),
        c => Some(Token::Literal(c)),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_with_wildcards() {
        let check = |pattern, value, expect| {
            assert_eq!(matches(pattern, value), expect, "{pattern} on {value}");
        };
        check("in-use", "in-use", true);
        check("in-use", "in-use-", false);
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("10.0.?.1", "10.0.2.1", true);
        check("10.0.?.1", "10.0.22.1", false);
        check("*a*b", "xaxxbxb", true);
        check("*a*b", "xaxxbx", false);
        check("a*", "A", false);
        check(r"\*", "*", true);
        check(r"\*", "x", false);
        check(r"a\\b", r"a\b", true);
    }

    #[test]
    fn filters_are_combined_and_unknown_ones_refused() {
        let filters: Filters<Tags> =
            Filters { by_name: &[("n", |tags| vec![tags.len().to_string()])], tags: Some(|t| t) };
        let tags = |keys: &[&str]| -> Tags {
            keys.iter().map(|key| ((*key).to_owned(), "v".to_owned())).collect()
        };
        let check = |given: &[(&str, &[&str])], expect: Result<usize, &str>| {
            let given: Vec<Filter> = given
                .iter()
                .map(|(name, values)| Filter {
                    name: (*name).to_owned(),
                    values: values.iter().map(|value| (*value).to_owned()).collect(),
                })
                .collect();
            let items = vec![tags(&[]), tags(&["a"]), tags(&["a", "b"])];
            let got = filters.apply(items, &given).map(|items| items.len());
            assert_eq!(got.map_err(|error| error.code), expect.map_err(str::to_owned));
        };
        check(&[], Ok(3));
        check(&[("n", &["1", "2"])], Ok(2));
        check(&[("n", &["1", "2"]), ("tag-key", &["b"])], Ok(1));
        check(&[("tag:a", &["v"])], Ok(2));
        check(&[("tag:a", &["w"])], Ok(0));
        check(&[("n", &[])], Ok(0));
        check(&[("moon", &["v"])], Err("InvalidParameterValue"));
        check(&[("n", &["1"; 201])], Err("FilterLimitExceeded"));
    }
}
