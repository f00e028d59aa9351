//! Where spans go, and which. The names are OpenTelemetry's own, so that whatever sets them for other programs sets them
//! for this one. Source: OpenTelemetry, "Environment Variable Specification" and "OTLP Exporter Configuration".

use std::fmt;

use service_url::ServiceUrl;

use crate::registry::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG,
    Setting,
};
use crate::{SettingError, Variables};

/// How traces are exported.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// Where to; `None` makes no spans.
    pub collector: Option<Collector>,
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: Headers,
    /// What all spans carry: `OTEL_RESOURCE_ATTRIBUTES`, and `OTEL_SERVICE_NAME` as `service.name`.
    pub attributes: Vec<(String, String)>,
    /// The caller of a request decides whether its spans are recorded.
    pub by_parent: bool,
    /// The share of all other traces that is recorded, from 0 to 1.
    pub share: f64,
}

/// Headers of a request, by name in lower case. Their values may be keys, so they are not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collector {
    /// By POST to this URL, `…/v1/traces`.
    Http(ServiceUrl),
    /// By gRPC; by TLS if the URL is `https://…`.
    Grpc(ServiceUrl),
}

/// What says which service a span is of.
const SERVICE_NAME: &str = "service.name";
/// What OTLP by HTTP appends for traces.
const PATH: &str = "/v1/traces";

pub(crate) fn settings(variables: &Variables) -> Result<TraceSettings, SettingError> {
    let (by_parent, share) = sampler(variables)?;
    Ok(TraceSettings {
        collector: collector(variables)?,
        headers: headers(variables)?,
        attributes: attributes(variables)?,
        by_parent,
        share,
    })
}

fn collector(variables: &Variables) -> Result<Option<Collector>, SettingError> {
    let setting = &OTEL_EXPORTER_OTLP_PROTOCOL;
    let is_grpc = match variables.text(setting).unwrap_or_default() {
        "grpc" => true,
        "http/protobuf" => false,
        _ => return Err(variables.error(setting, "expected http/protobuf or grpc")),
    };
    let setting = &OTEL_EXPORTER_OTLP_ENDPOINT;
    let Some(url) = variables.url(setting)? else { return Ok(None) };
    if is_grpc {
        return Ok(Some(Collector::Grpc(url)));
    }
    let text = format!("{}{PATH}", url.as_str().trim_end_matches('/'));
    let url = ServiceUrl::parse(&text);
    url.map(|url| Some(Collector::Http(url)))
        .map_err(|fault| variables.error(setting, &fault.to_string()))
}

/// `key=value`, with commas between; a value may be percent-encoded. Source: OpenTelemetry, "Resource SDK".
fn pairs(
    variables: &Variables,
    setting: &'static Setting,
) -> Result<Vec<(String, String)>, SettingError> {
    let text = variables.text(setting).unwrap_or_default();
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let read = pair.split_once('=').and_then(|(key, value)| {
            let (key, value) = (decoded(key.trim())?, decoded(value.trim())?);
            (!key.is_empty()).then_some((key, value))
        });
        let expected = "expected key=value with commas between, percent-encoded";
        read.ok_or_else(|| variables.error(setting, expected))
    });
    pairs.collect()
}

/// Headers that an exporter may not choose.
const OWN_HEADERS: [&str; 7] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
];

/// Source: OpenTelemetry, "OTLP Exporter Configuration"; gRPC, "PROTOCOL-HTTP2".
fn headers(variables: &Variables) -> Result<Headers, SettingError> {
    let setting = &OTEL_EXPORTER_OTLP_HEADERS;
    let is_name = |name: &str| {
        let is_part =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let is_free = !OWN_HEADERS.contains(&name) && !name.starts_with("grpc-");
        is_free && !name.ends_with("-bin") && name.bytes().all(is_part)
    };
    let is_value = |value: &str| value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let mut headers = Vec::new();
    for (name, value) in pairs(variables, setting)? {
        let name = name.to_ascii_lowercase();
        if !is_name(&name) || !is_value(&value) {
            let expected = "expected names of headers that are not the protocol's own, and values of printable ASCII";
            return Err(variables.error(setting, expected));
        }
        headers.push((name, value));
    }
    Ok(Headers(headers))
}

/// What all spans carry.
fn attributes(variables: &Variables) -> Result<Vec<(String, String)>, SettingError> {
    let mut attributes = pairs(variables, &OTEL_RESOURCE_ATTRIBUTES)?;
    if let Some(name) = variables.own_text(&OTEL_SERVICE_NAME) {
        attributes.retain(|(key, _)| key != SERVICE_NAME);
        attributes.push((SERVICE_NAME.to_owned(), name.to_owned()));
    } else if attributes.iter().all(|(key, _)| key != SERVICE_NAME) {
        let name = variables.text(&OTEL_SERVICE_NAME).unwrap_or_default();
        attributes.push((SERVICE_NAME.to_owned(), name.to_owned()));
    }
    Ok(attributes)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|it| !it.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// Whether the caller decides, and the share of all other traces.
fn sampler(variables: &Variables) -> Result<(bool, f64), SettingError> {
    let setting = &OTEL_TRACES_SAMPLER_ARG;
    let argument = variables.text(setting).map(str::parse::<f64>).transpose();
    let argument = argument.ok().filter(|share| share.is_none_or(|it| (0.0..=1.0).contains(&it)));
    let argument =
        argument.ok_or_else(|| variables.error(setting, "expected a number from 0 to 1"))?;
    let setting = &OTEL_TRACES_SAMPLER;
    let name = variables.text(setting).unwrap_or_default();
    let (by_parent, others) = match name.strip_prefix("parentbased_") {
        Some(others) => (true, others),
        None => (false, name),
    };
    let share = match others {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => argument.unwrap_or(1.0),
        _ => {
            let allowed = "expected always_on, always_off or traceidratio, each also with parentbased_ before it";
            return Err(variables.error(setting, allowed));
        }
    };
    Ok((by_parent, share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SettingError, Settings};

    fn read(set: &[(&str, &str)]) -> Result<TraceSettings, SettingError> {
        let owned = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(&owned.collect()).map(|settings| settings.traces)
    }

    #[test]
    fn nothing_is_exported_by_default() {
        let traces = read(&[]).unwrap();
        assert_eq!(traces.collector, None);
        assert_eq!(traces.attributes, [("service.name".to_owned(), "ipamd".to_owned())]);
        assert_eq!((traces.by_parent, traces.share), (true, 1.0));
    }

    #[test]
    fn headers_are_read_and_not_shown() {
        let headers = |text: &str| read(&[("OTEL_EXPORTER_OTLP_HEADERS", text)]);
        let read = headers("Authorization=Bearer%20sesame, x-team=net").unwrap().headers;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read.0, [pair("authorization", "Bearer sesame"), pair("x-team", "net")]);
        assert_eq!(format!("{read:?}"), r#"["authorization", "x-team"]"#);
        for bad in
            ["sesame", "a b=sesame", "x=%00sesame", "host=sesame", "grpc-x=sesame", "k-bin=sesame"]
        {
            let error = headers(bad).unwrap_err().to_string();
            assert!(error.starts_with("OTEL_EXPORTER_OTLP_HEADERS=\"***\": expected "), "{error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn collector_is_named_as_opentelemetry_has_it() {
        let check = |endpoint: &str, protocol: &str, expect: Result<&str, &str>| {
            let set = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ];
            let found = match read(&set) {
                Ok(TraceSettings { collector: Some(Collector::Http(url)), .. }) => {
                    Ok(format!("http {url}"))
                }
                Ok(TraceSettings { collector: Some(Collector::Grpc(url)), .. }) => {
                    Ok(format!("grpc {url}"))
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            };
            match (found, expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect),
                (Err(found), Err(expect)) => assert!(found.contains(expect), "{found}"),
                (found, expect) => panic!("{found:?}, expected {expect:?}"),
            }
        };
        check("http://10.0.0.1:4318", "", Ok("http http://10.0.0.1:4318/v1/traces"));
        check(
            "https://otlp.example/a/",
            "http/protobuf",
            Ok("http https://otlp.example/a/v1/traces"),
        );
        check("http://tempo.obs:4317", "grpc", Ok("grpc http://tempo.obs:4317"));
        check("https://tempo.obs:4317", "grpc", Ok("grpc https://tempo.obs:4317"));
        check("http://tempo.obs:4318", "http/json", Err("expected http/protobuf or grpc"));
        check("tempo.obs:4318", "", Err("expected http://HOST[:PORT]"));
    }

    #[test]
    fn attributes_are_decoded_and_the_service_has_one_name() {
        let check = |attributes: &str, service: &str, expect: Option<&[(&str, &str)]>| {
            let set = [("OTEL_RESOURCE_ATTRIBUTES", attributes), ("OTEL_SERVICE_NAME", service)];
            let found = read(&set).ok().map(|traces| traces.attributes);
            let owned = |all: &[(&str, &str)]| {
                all.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
            };
            assert_eq!(found, expect.map(owned), "{attributes:?} {service:?}");
        };
        check(
            "k8s.cluster.name=a, team=net%2Cops ,",
            "",
            Some(&[("k8s.cluster.name", "a"), ("team", "net,ops"), ("service.name", "ipamd")]),
        );
        check("service.name=x", "", Some(&[("service.name", "x")]));
        check("service.name=x", "y", Some(&[("service.name", "y")]));
        for bad in ["team", "=x", "team=%", "team=%+1", "team=%zz", "team=%ff"] {
            check(bad, "", None);
        }
    }

    #[test]
    fn sampler_has_the_standard_names() {
        let check = |name: &str, argument: &str, expect: Option<(bool, f64)>| {
            let set = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            let found = read(&set).ok().map(|traces| (traces.by_parent, traces.share));
            assert_eq!(found, expect, "{name} {argument}");
        };
        check("", "", Some((true, 1.0)));
        check("always_on", "", Some((false, 1.0)));
        check("always_off", "", Some((false, 0.0)));
        check("parentbased_always_off", "0.5", Some((true, 0.0)));
        check("traceidratio", "0.25", Some((false, 0.25)));
        check("parentbased_traceidratio", "", Some((true, 1.0)));
        for (name, argument) in
            [("xray", ""), ("parentbased_", ""), ("traceidratio", "2"), ("always_on", "NaN")]
        {
            check(name, argument, None);
        }
    }
}
