//! `CNI_ARGS`: `key=value` pairs, separated by semicolons, in any order.

/// The pod as the runtime names it in `CNI_ARGS`; fields that the runtime leaves out are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`.
    pub uid: String,
}

impl Pod {
    /// Parses the value of `CNI_ARGS`; empty or absent is legal. The last value of a repeated key
    /// counts.
    ///
    /// # Errors
    ///
    /// The first malformed pair, or all unknown keys unless `IgnoreUnknown` is true.
    pub(crate) fn parse(args: &str) -> Result<Pod, String> {
        let mut pod = Pod::default();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in args.split(';').filter(|_| !args.is_empty()) {
            let (key, value) = split(pair)?;
            match key {
                "IgnoreUnknown" => ignore_unknown = truth(value)?,
                "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
                "K8S_POD_NAME" => value.clone_into(&mut pod.name),
                "K8S_POD_UID" => value.clone_into(&mut pod.uid),
                // The same as `CNI_CONTAINERID`.
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                _ => unknown.push(key),
            }
        }
        if unknown.is_empty() || ignore_unknown {
            Ok(pod)
        } else {
            Err(format!("CNI_ARGS has unknown keys {unknown:?} and no IgnoreUnknown=1"))
        }
    }
}

fn split(pair: &str) -> Result<(&str, &str), String> {
    match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.contains('=') => Ok((key, value)),
        _ => Err(format!("CNI_ARGS has {pair:?} where key=value is expected")),
    }
}

/// A boolean as the reference library reads it in `CNI_ARGS`.
fn truth(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("CNI_ARGS has IgnoreUnknown={value:?}: expected 1, 0, true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &str, expect: Result<[&str; 3], &str>) {
        let pod = Pod::parse(args);
        let got = pod.as_ref().map(|p| [p.namespace.as_str(), p.name.as_str(), p.uid.as_str()]);
        match expect {
            Ok(fields) => assert_eq!(got, Ok(fields), "{args}"),
            Err(part) => assert!(got.is_err_and(|e| e.contains(part)), "{args}: {pod:?}"),
        }
    }

    #[test]
    fn args_well_formed_parse_to_the_pod() {
        check("", Ok(["", "", ""]));
        check("K8S_POD_NAME=x;K8S_POD_NAMESPACE=y", Ok(["y", "x", ""]));
        check("K8S_POD_UID=u;IgnoreUnknown=1;MY=1;K8S_POD_NAME=x", Ok(["", "x", "u"]));
        check("MY=1;IgnoreUnknown=TRUE", Ok(["", "", ""]));
        check("K8S_POD_INFRA_CONTAINER_ID=f00;K8S_POD_NAME=", Ok(["", "", ""]));
    }

    #[test]
    fn args_unknown_keys_are_refused_without_ignore_unknown() {
        check("A=1;K8S_POD_NAME=x;B=2", Err(r#"["A", "B"]"#));
        check("A=1;IgnoreUnknown=0", Err(r#"["A"]"#));
        check("IgnoreUnknown=maybe", Err("maybe"));
    }

    #[test]
    fn args_ill_formed_are_refused() {
        for args in ["x", "=1", "K8S_POD_NAME=a=b", ";", "K8S_POD_NAME=a;", "IgnoreUnknown=1;x"] {
            check(args, Err("key=value"));
        }
    }
}
