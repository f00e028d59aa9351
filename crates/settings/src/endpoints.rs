//! Where AWS's services listen: the daemon's own setting and the variables that the AWS SDK reads. The SDK passes over
//! a bad value with one line in the log, and asks the region's own endpoint instead. So each is judged here.

use service_url::{NoProxy, ServiceUrl};

use crate::registry::{
    AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_EC2_ENDPOINT, AWS_EC2_METADATA_SERVICE_ENDPOINT,
    AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_STS,
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS, NO_PROXY, Setting,
};
use crate::{SettingError, Variables};

/// What [`AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`] is about.
static CONFIGURED: [&Setting; 3] =
    [&AWS_ENDPOINT_URL_EC2, &AWS_ENDPOINT_URL_STS, &AWS_ENDPOINT_URL];
static OTHERS: [&Setting; 2] =
    [&AWS_EC2_METADATA_SERVICE_ENDPOINT, &AWS_CONTAINER_CREDENTIALS_FULL_URI];

/// How much of an entry of `NO_PROXY` is shown, in characters.
const SHOWN: usize = 100;

/// The endpoint of EC2, if it is not the region's own.
pub(crate) fn of_ec2(variables: &Variables) -> Result<Option<ServiceUrl>, SettingError> {
    for setting in CONFIGURED.into_iter().chain(OTHERS) {
        variables.url(setting)?;
    }
    for setting in [&AWS_ENDPOINT_URL_EC2, &AWS_ENDPOINT_URL_STS] {
        if variables.is_set_and_empty(setting) {
            let allowed = "the AWS SDK panics at an empty value; leave the variable out";
            return Err(variables.error(setting, allowed));
        }
    }
    if let Some(own) = variables.url(&AWS_EC2_ENDPOINT)? {
        return Ok(Some(own));
    }
    if are_ignored(variables)? {
        return Ok(None);
    }
    match variables.url(&AWS_ENDPOINT_URL_EC2)? {
        Some(specific) => Ok(Some(specific)),
        None => variables.url(&AWS_ENDPOINT_URL),
    }
}

/// One line for each value without effect.
pub(crate) fn warnings(
    variables: &Variables,
    no_proxy: &NoProxy,
) -> Result<Vec<String>, SettingError> {
    let unmatched = no_proxy.without_effect().iter().map(|entry| {
        let shown: String = entry.chars().take(SHOWN).collect();
        format!("{}: {shown:?} has no effect: it is no host, address or CIDR", NO_PROXY.name)
    });
    let mut warnings: Vec<_> = unmatched.collect();
    if are_ignored(variables)? {
        let because = AWS_IGNORE_CONFIGURED_ENDPOINT_URLS.name;
        let set = CONFIGURED.into_iter().filter(|setting| variables.text(setting).is_some());
        warnings.extend(set.map(|setting| {
            let (name, value) = (setting.name, variables.shown(setting));
            format!("{name}: {value:?} has no effect with {because}=true")
        }));
    }
    Ok(warnings)
}

/// The SDK knows fewer spellings than the daemon.
fn are_ignored(variables: &Variables) -> Result<bool, SettingError> {
    let setting = &AWS_IGNORE_CONFIGURED_ENDPOINT_URLS;
    match variables.text(setting).map(str::to_ascii_lowercase).as_deref() {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(_) => Err(variables.error(setting, "expected true or false")),
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;

    fn read(set: &[(&str, &str)]) -> Result<Settings, crate::SettingError> {
        let owned = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(&owned.collect())
    }

    #[test]
    fn ec2_endpoint_is_the_most_specific_that_is_set() {
        let ignore = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True");
        let all = [
            ("AWS_EC2_ENDPOINT", "http://own"),
            ("AWS_ENDPOINT_URL_EC2", "http://specific"),
            ("AWS_ENDPOINT_URL", "http://any"),
        ];
        let endpoint = |set: &[(&str, &str)]| {
            read(set).unwrap().ec2_endpoint.map(|endpoint| endpoint.as_str().to_owned())
        };
        assert_eq!(endpoint(&all).as_deref(), Some("http://own"));
        assert_eq!(endpoint(&all[1..]).as_deref(), Some("http://specific"));
        assert_eq!(endpoint(&[("AWS_EC2_ENDPOINT", ""), all[2]]).as_deref(), Some("http://any"));
        assert_eq!(endpoint(&[ignore, all[0]]).as_deref(), Some("http://own"));
        assert_eq!(endpoint(&[ignore, all[1], all[2]]), None);
    }

    /// The SDK would pass over each of them.
    #[test]
    fn bad_endpoint_of_the_sdk_is_refused() {
        for name in [
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_EC2",
            "AWS_ENDPOINT_URL_STS",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ] {
            let error = read(&[(name, "sts.example")]).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{name}=\"sts.example\": expected http://HOST[:PORT] or https://…")
            );
            assert!(read(&[(name, "http://169.254.170.23/v1/credentials")]).is_ok(), "{name}");
        }
        let error = read(&[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "1")]).unwrap_err().to_string();
        assert_eq!(error, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=\"1\": expected true or false");
    }

    #[test]
    fn empty_endpoint_that_the_sdk_panics_at_is_refused() {
        for name in ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_STS"] {
            let error = read(&[(name, "")]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}=\"\": the AWS SDK panics")), "{error}");
        }
        assert!(read(&[("AWS_ENDPOINT_URL", "")]).is_ok());
    }

    #[test]
    fn endpoint_without_effect_is_a_warning() {
        let ignored = read(&[
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
            ("AWS_ENDPOINT_URL_STS", "http://sts"),
            ("NO_PROXY", "good.example,a:b"),
        ]);
        let warnings = ignored.unwrap().warnings;
        for expect in [
            "AWS_ENDPOINT_URL_STS: \"http://sts\" has no effect with AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true",
            "NO_PROXY: \"a:b\" has no effect: it is no host, address or CIDR",
        ] {
            assert!(warnings.iter().any(|warning| warning == expect), "{warnings:?}");
        }
    }
}
