//! Reads the parameters of an EC2 Query request, and takes out each one that it reads.
//!
//! A parameter left at the end is an error: nothing that a client sends is ignored. This module
//! must not know any operation.

use std::collections::BTreeMap;
use std::str::FromStr;

use ec2_model::ApiError;

/// The parameters of one request, or of one numbered item inside it.
#[derive(Debug)]
pub(super) struct Params {
    /// The prefix of each key in the request, for messages: empty or `Filter.1.`.
    prefix: String,
    left: BTreeMap<String, String>,
}

impl Params {
    /// The parameters of a form body or a query string (`a=1&b=2`).
    ///
    /// # Errors
    /// `MalformedQueryString` if a key is given twice.
    pub(super) fn from_form(form: &[u8]) -> Result<Self, ApiError> {
        let mut left = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(form) {
            if let Some(_first) = left.insert(key.to_string(), value.into_owned()) {
                let message = format!("The parameter {key} is given more than once");
                return Err(ApiError::new("MalformedQueryString", message));
            }
        }
        Ok(Self { prefix: String::new(), left })
    }

    /// The parameters that are still unread, for the call log.
    #[must_use]
    pub(super) fn as_map(&self) -> &BTreeMap<String, String> {
        &self.left
    }

    /// The value of `name`.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    /// The value of `name`, which must exist and not be empty.
    ///
    /// # Errors
    /// `MissingParameter`.
    /// `MissingParameter`.
    pub(super) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name).filter(|value| !value.is_empty()).ok_or_else(|| self.missing(name))
    }

    /// The value of `name`, parsed to a type whose parser returns EC2's error.
    ///
    /// # Errors
    /// The error of the parser.
    pub(super) fn parsed<T: FromStr<Err = ApiError>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        self.text(name).map(|text| text.parse()).transpose()
    }

    /// As [`Params::parsed`], for a required value.
    ///
    /// # Errors
    /// `MissingParameter` and those of [`Params::parsed`].
    pub(super) fn required_as<T: FromStr<Err = ApiError>>(
        &mut self,
        name: &str,
    ) -> Result<T, ApiError> {
        self.required(name)?.parse()
    }

    /// The value of `name` as an address or a CIDR block.
    ///
    /// # Errors
    /// `InvalidParameterValue` if it is neither.
    pub(super) fn address<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(|text| read_address(&text)).transpose()
    }

    /// As [`Params::address`], for a required value.
    ///
    /// # Errors
    /// `MissingParameter` and those of [`Params::address`].
    pub(super) fn required_address<T: FromStr>(&mut self, name: &str) -> Result<T, ApiError> {
        self.required(name).and_then(|text| read_address(&text))
    }

    /// The value of `name` as a number.
    ///
    /// # Errors
    /// `InvalidParameterValue` if it is not a number or out of range.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<i32>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let invalid = |_| self.invalid(&text, name, "It must be an integer of 32 bits.");
        text.parse().map(Some).map_err(invalid)
    }

    /// As [`Params::number`], for a required value.
    ///
    /// # Errors
    /// `MissingParameter` and those of [`Params::number`].
    pub(super) fn required_number(&mut self, name: &str) -> Result<i32, ApiError> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    /// The value of `name` as a boolean.
    ///
    /// # Errors
    /// `InvalidParameterValue` if it is neither `true` nor `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // SDKs send `true`. Hand-written clients send `True`, which EC2 accepts too.
        let invalid = |_| self.invalid(&text, name, "It must be true or false.");
        text.to_ascii_lowercase().parse().map(Some).map_err(invalid)
    }

    /// The values of `name.1`, `name.2`, …, ascending by number. Gaps are allowed.
    pub(super) fn texts(&mut self, name: &str) -> Vec<String> {
        let mut found: Vec<(u32, String)> = Vec::new();
        self.left.retain(|key, value| match index_of(key, name) {
            Some((index, "")) => {
                found.push((index, std::mem::take(value)));
                false
            }
            Some(_) | None => true,
        });
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// As [`Params::texts`], each value parsed as in [`Params::parsed`].
    ///
    /// # Errors
    /// The error of the parser, for the first bad value.
    pub(super) fn list<T: FromStr<Err = ApiError>>(
        &mut self,
        name: &str,
    ) -> Result<Vec<T>, ApiError> {
        self.texts(name).iter().map(|text| text.parse()).collect()
    }

    /// As [`Params::texts`], each value as in [`Params::address`].
    ///
    /// # Errors
    /// `InvalidParameterValue` for the first bad value.
    pub(super) fn addresses<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, ApiError> {
        self.texts(name).iter().map(|text| read_address(text)).collect()
    }

    /// Reads each of the structures `name.1.…`, `name.2.…` with `read`, ascending by number.
    ///
    /// # Errors
    /// Those of `read`, and `UnknownParameter` for a member that `read` left.
    pub(super) fn items<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Self) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let mut found: BTreeMap<u32, Self> = BTreeMap::new();
        self.left.retain(|key, value| match index_of(key, name) {
            Some((index, member)) if !member.is_empty() => {
                let item = found.entry(index).or_insert_with(|| Self {
                    prefix: format!("{}{name}.{index}.", self.prefix),
                    left: BTreeMap::new(),
                });
                item.left.insert(member.to_owned(), std::mem::take(value));
                false
            }
            Some(_) | None => true,
        });
        let read_whole = |mut item: Self| {
            let value = read(&mut item)?;
            item.finish()?;
            Ok(value)
        };
        found.into_values().map(read_whole).collect()
    }

    /// Checks that all parameters were read.
    ///
    /// # Errors
    /// `UnknownParameter` with the first unread key.
    pub(super) fn finish(&self) -> Result<(), ApiError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => Err(ApiError::unknown_parameter(&format!("{}{key}", self.prefix))),
        }
    }

    /// The error of a request without `name`.
    #[must_use]
    pub(super) fn missing(&self, name: &str) -> ApiError {
        ApiError::missing_parameter(&format!("{}{name}", self.prefix))
    }

    fn invalid(&self, value: &str, name: &str, why: &str) -> ApiError {
        ApiError::invalid_value(value, &format!("{}{name}", self.prefix), why)
    }
}

fn read_address<T: FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::malformed_address(text))
}

/// For a `key` such as `Filter.1.Name` in list `name`: the number, and the rest without its dot.
fn index_of<'a>(key: &'a str, name: &str) -> Option<(u32, &'a str)> {
    let numbered = key.strip_prefix(name)?.strip_prefix('.')?;
    let (index, member) = numbered.split_once('.').unwrap_or((numbered, ""));
    let canonical = !index.starts_with(['0', '+']);
    canonical.then(|| index.parse().ok())?.map(|index| (index, member))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(form: &str) -> Params {
        Params::from_form(form.as_bytes()).unwrap()
    }

    #[test]
    fn list_is_read_in_numeric_order() {
        let mut got = params("A.10=ten&A.2=two&A.1=one&A.B=other");
        assert_eq!(got.texts("A"), ["one", "two", "ten"]);
        assert_eq!(got.finish().unwrap_err().message, "The parameter A.B is not recognized");
    }

    #[test]
    fn structure_is_read_with_its_members() {
        let mut got = params("Filter.1.Name=n&Filter.1.Value.1=a&Filter.1.Value.2=b+c%2F");
        let filters = got.items("Filter", |f| Ok((f.required("Name")?, f.texts("Value")))).unwrap();
        assert_eq!(filters, [("n".to_owned(), vec!["a".to_owned(), "b c/".to_owned()])]);
        got.finish().unwrap();
    }

    #[test]
    fn error_names_whole_key() {
        let check = |form: &str, want: &str| {
            let read = |filter: &mut Params| filter.required("Name");
            let refusal = params(form).items("Filter", read).unwrap_err();
            assert_eq!(refusal.to_string(), want, "{form}");
        };
        check(
            "Filter.1.Nme=n",
            "MissingParameter: The request must contain the parameter Filter.1.Name",
        );
        check(
            "Filter.1.Name=n&Filter.1.Nme=n",
            "UnknownParameter: The parameter Filter.1.Nme is not recognized",
        );
    }

    #[test]
    fn number_and_flag_are_checked() {
        let check = |form: &str, number: Option<Option<i32>>, flag: Option<Option<bool>>| {
            assert_eq!(params(form).number("X").ok(), number, "{form}");
            assert_eq!(params(form).flag("X").ok(), flag, "{form}");
        };
        check("X=1", Some(Some(1)), None);
        check("X=-1", Some(Some(-1)), None);
        check("X=3000000000", None, None);
        check("X=", None, None);
        check("X=true", None, Some(Some(true)));
        check("X=False", None, Some(Some(false)));
        check("Y=1", Some(None), Some(None));
    }

    #[test]
    fn repeated_key_is_refused() {
        assert_eq!(Params::from_form(b"A=1&A=2").unwrap_err().code, "MalformedQueryString");
    }
}
