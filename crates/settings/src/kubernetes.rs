//! Whether and how the daemon uses the Kubernetes API server.

use std::net::IpAddr;
use std::path::PathBuf;

use ipam::eni_config::EniConfigKeys;
use ipam::policy::Placement;
use service_url::ServiceUrl;

use crate::registry::{
    ANNOTATE_POD_IP, AWS_MANAGE_ENIS_NON_SCHEDULABLE, AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG,
    CLUSTER_ENDPOINT, ENABLE_SUBNET_DISCOVERY, ENI_CONFIG_ANNOTATION_DEF, ENI_CONFIG_LABEL_DEF,
    KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT, MY_NODE_NAME, Setting, TIDEPOOL_EARLY_DEMAND,
    TIDEPOOL_KUBERNETES, TIDEPOOL_NODE_ANNOTATIONS, TIDEPOOL_NODE_CONDITION,
    TIDEPOOL_SERVICE_ACCOUNT, TIDEPOOL_SETTINGS, TIDEPOOL_SETTINGS_LABEL, TIDEPOOL_STARTUP_TAINT,
};
use crate::{SettingError, Source, Variables};

/// How the daemon uses the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiServer {
    /// It does not, for this reason.
    Unused(&'static str),
    /// It watches this node there.
    Used {
        /// `CLUSTER_ENDPOINT`, or where the kubelet says that the API server is.
        url: ServiceUrl,
        /// `TIDEPOOL_SERVICE_ACCOUNT`: the directory with `token` and `ca.crt`.
        service_account: PathBuf,
        /// `MY_NODE_NAME`.
        node_name: String,
    },
}

/// Where the cluster has settings for its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsMaps {
    /// The namespace of the `ConfigMap`s.
    pub namespace: String,
    /// The name of the one for all nodes.
    pub name: String,
    /// The node's label that names its group.
    pub group_label: String,
    /// Whether somebody has set `TIDEPOOL_SETTINGS`.
    pub is_set: bool,
}

/// What the daemon does for this node and its pods at the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnNode {
    /// `TIDEPOOL_EARLY_DEMAND`.
    pub early_demand: bool,
    /// Whether somebody has set it.
    pub early_demand_is_set: bool,
    /// Whether somebody has set `AWS_MANAGE_ENIS_NON_SCHEDULABLE`, so that a cordon of the node is to be heeded.
    pub cordon_is_set: bool,
    /// `TIDEPOOL_NODE_ANNOTATIONS`.
    pub annotations: bool,
    /// `TIDEPOOL_NODE_CONDITION`.
    pub condition: bool,
    /// `TIDEPOOL_STARTUP_TAINT`.
    pub startup_taint: Option<String>,
    /// `ANNOTATE_POD_IP`.
    pub pod_annotations: bool,
}

/// `TIDEPOOL_KUBERNETES`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    IfKnown,
    Never,
    Always,
}

/// Where the API server is and how it is used.
///
/// # Errors
/// For the first bad value. Also if something needs the API server and its URL or the node's name is missing.
pub(crate) fn api_server(variables: &Variables) -> Result<ApiServer, SettingError> {
    let url = url(variables)?;
    let service_account = variables.path(&TIDEPOOL_SERVICE_ACCOUNT)?;
    let wanted = wanted(variables)?;
    if wanted == Use::Never
        && let Some(setting) = what_needs_it(variables)?
    {
        let needs = "only the API server can do it: set TIDEPOOL_KUBERNETES=auto too";
        return Err(variables.error(setting, needs));
    }
    if wanted == Use::Never {
        return Ok(ApiServer::Unused("TIDEPOOL_KUBERNETES=false"));
    }
    let node_name = variables.text(&MY_NODE_NAME).map(str::to_owned);
    let missing = match (url, node_name) {
        (Some(url), Some(node_name)) => {
            return Ok(ApiServer::Used { url, service_account, node_name });
        }
        (None, _) => "KUBERNETES_SERVICE_HOST is not set, as the kubelet does in each pod",
        (Some(_), None) => "MY_NODE_NAME is not set; the manifest takes it from spec.nodeName",
    };
    let needs = format!("the API server is needed, but {missing}");
    match (what_needs_it(variables)?, wanted) {
        (Some(setting), _) => Err(variables.error(setting, &needs)),
        (None, Use::Always) => Err(variables.error(&TIDEPOOL_KUBERNETES, &needs)),
        (None, Use::IfKnown | Use::Never) => Ok(ApiServer::Unused(missing)),
    }
}

/// The first setting that asks for something which only the API server can do.
fn what_needs_it(variables: &Variables) -> Result<Option<&'static Setting>, SettingError> {
    let OnNode { annotations, condition, startup_taint, pod_annotations, .. } = on_node(variables)?;
    let by_eni_config = placement(variables)? == Placement::ByEniConfig;
    let needs = [
        (by_eni_config, &AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG),
        (startup_taint.is_some(), &TIDEPOOL_STARTUP_TAINT),
        (condition, &TIDEPOOL_NODE_CONDITION),
        (annotations, &TIDEPOOL_NODE_ANNOTATIONS),
        (pod_annotations, &ANNOTATE_POD_IP),
    ];
    Ok(needs.into_iter().find(|(is_wanted, _)| *is_wanted).map(|(_, setting)| setting))
}

/// What is done for this node and its pods.
pub(crate) fn on_node(variables: &Variables) -> Result<OnNode, SettingError> {
    let taint = variables.text(&TIDEPOOL_STARTUP_TAINT).map(str::to_owned);
    if taint.as_deref().is_some_and(|key| !is_qualified_name(key)) {
        let expected = "expected the key of a taint, such as example.com/agent-not-ready";
        return Err(variables.error(&TIDEPOOL_STARTUP_TAINT, expected));
    }
    Ok(OnNode {
        early_demand: variables.boolean(&TIDEPOOL_EARLY_DEMAND)?,
        early_demand_is_set: is_set(variables, &TIDEPOOL_EARLY_DEMAND),
        cordon_is_set: is_set(variables, &AWS_MANAGE_ENIS_NON_SCHEDULABLE)
            && !variables.boolean(&AWS_MANAGE_ENIS_NON_SCHEDULABLE)?,
        annotations: variables.boolean(&TIDEPOOL_NODE_ANNOTATIONS)?,
        condition: variables.boolean(&TIDEPOOL_NODE_CONDITION)?,
        startup_taint: taint,
        pod_annotations: variables.boolean(&ANNOTATE_POD_IP)?,
    })
}

fn is_set(variables: &Variables, setting: &'static Setting) -> bool {
    variables.effective(setting).1 != Source::Default
}

/// Source: Kubernetes, "Labels and Selectors", "Syntax and character set".
fn is_qualified_name(key: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_text = |text: &str, longest| {
        !text.is_empty() && text.len() <= longest && text.bytes().all(is_part)
    };
    match key.split_once('/') {
        Some((prefix, name)) => is_text(prefix, 253) && is_text(name, 63),
        None => is_text(key, 63),
    }
}

/// Where new ENIs go.
pub(crate) fn placement(variables: &Variables) -> Result<Placement, SettingError> {
    let by_eni_config = variables.boolean(&AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG)?;
    Ok(match (by_eni_config, variables.boolean(&ENABLE_SUBNET_DISCOVERY)?) {
        (true, _) => Placement::ByEniConfig,
        (false, true) => Placement::LikePrimary,
        (false, false) => Placement::PrimarySubnet,
    })
}

/// Where nodes name their ENIConfig.
pub(crate) fn eni_config_keys(variables: &Variables) -> EniConfigKeys {
    let key = |setting| variables.text(setting).unwrap_or_default().to_owned();
    EniConfigKeys { annotation: key(&ENI_CONFIG_ANNOTATION_DEF), label: key(&ENI_CONFIG_LABEL_DEF) }
}

/// Where the cluster has settings; `None` if they are not wanted.
pub(crate) fn settings_maps(variables: &Variables) -> Result<Option<SettingsMaps>, SettingError> {
    let setting = &TIDEPOOL_SETTINGS;
    let text = variables.text(setting).unwrap_or_default();
    let group_label = variables.text(&TIDEPOOL_SETTINGS_LABEL).unwrap_or_default().to_owned();
    let is_name = |name: &str| {
        let is_part = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        !name.is_empty() && name.bytes().all(is_part)
    };
    match text.split_once('/') {
        _ if text == "off" => Ok(None),
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            let is_set = is_set(variables, setting);
            Ok(Some(SettingsMaps { namespace, name, group_label, is_set }))
        }
        Some(_) | None => Err(variables.error(setting, "expected NAMESPACE/NAME or off")),
    }
}

fn wanted(variables: &Variables) -> Result<Use, SettingError> {
    match variables.text(&TIDEPOOL_KUBERNETES) {
        None | Some("auto") => Ok(Use::IfKnown),
        Some("true") => Ok(Use::Always),
        Some("false") => Ok(Use::Never),
        Some(_) => Err(variables.error(&TIDEPOOL_KUBERNETES, "expected auto, true or false")),
    }
}

/// The kubelet sets host and port together, and never one alone.
fn url(variables: &Variables) -> Result<Option<ServiceUrl>, SettingError> {
    let port = variables.number::<u16>(&KUBERNETES_SERVICE_PORT, 1, u16::MAX)?;
    let of_kubelet = variables.text(&KUBERNETES_SERVICE_HOST).map(|host| {
        let host = match host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
        };
        let url = ServiceUrl::parse(&format!("https://{host}:{port}")).ok();
        let expected =
            || variables.error(&KUBERNETES_SERVICE_HOST, "expected a name or an address");
        url.filter(|url| url.host() == host).ok_or_else(expected)
    });
    let of_kubelet = of_kubelet.transpose()?;
    Ok(variables.url(&CLUSTER_ENDPOINT)?.or(of_kubelet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn read(text: &str) -> Result<ApiServer, String> {
        let set = text.split_whitespace().filter_map(|set| set.split_once('='));
        let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Settings::read(&variables).map(|it| it.api_server).map_err(|fault| fault.to_string())
    }

    #[test]
    fn api_server_is_used_where_the_kubelet_names_it() {
        let check = |text: &str, expect: &str| {
            let ApiServer::Used { url, service_account, node_name } = read(text).unwrap() else {
                panic!("{text}: not used");
            };
            let directory = "/var/run/secrets/kubernetes.io/serviceaccount";
            assert_eq!((url.as_str(), &*node_name), (expect, "n1"), "{text}");
            assert_eq!(service_account, std::path::Path::new(directory));
        };
        check("KUBERNETES_SERVICE_HOST=10.0.0.1 MY_NODE_NAME=n1", "https://10.0.0.1:443");
        let v6 = "KUBERNETES_SERVICE_HOST=fd00::1 KUBERNETES_SERVICE_PORT=6443 MY_NODE_NAME=n1";
        check(v6, "https://[fd00::1]:6443");
        check(&format!("{v6} CLUSTER_ENDPOINT=https://api:1"), "https://api:1");
        check("CLUSTER_ENDPOINT=http://127.0.0.1:8080 MY_NODE_NAME=n1", "http://127.0.0.1:8080");
    }

    #[test]
    fn api_server_is_unused_or_an_error_if_something_is_missing() {
        let unused = |text: &str, expect: &str| match read(text) {
            Ok(ApiServer::Unused(why)) => assert!(why.contains(expect), "{text}: {why}"),
            other => panic!("{text}: {other:?}"),
        };
        let host = "KUBERNETES_SERVICE_HOST=10.0.0.1";
        unused("", "KUBERNETES_SERVICE_HOST is not set");
        unused(host, "MY_NODE_NAME is not set");
        unused(&format!("{host} MY_NODE_NAME=n TIDEPOOL_KUBERNETES=false"), "=false");
        let refused = |text: &str, start: &str, end: &str| {
            let fault = read(text).unwrap_err();
            assert!(fault.starts_with(start) && fault.contains(end), "{text}: {fault}");
        };
        let custom = "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true";
        refused("TIDEPOOL_KUBERNETES=true", "TIDEPOOL_KUBERNETES=", "HOST is not set");
        refused(custom, "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=", "HOST is not set");
        refused(&format!("{custom} {host}"), "AWS_VPC", "MY_NODE_NAME is not set");
        let off = format!("{custom} {host} MY_NODE_NAME=n TIDEPOOL_KUBERNETES=false");
        refused(&off, "AWS_VPC", "set TIDEPOOL_KUBERNETES=auto");
        for set in ["TIDEPOOL_STARTUP_TAINT=a.io/b", "TIDEPOOL_NODE_CONDITION=true"] {
            let (name, _) = set.split_once('=').unwrap();
            refused(set, name, "HOST is not set");
            refused(
                &format!("{set} TIDEPOOL_KUBERNETES=false"),
                name,
                "set TIDEPOOL_KUBERNETES=auto",
            );
        }
        refused("TIDEPOOL_STARTUP_TAINT=a/b/c", "TIDEPOOL_STARTUP_TAINT=", "expected the key");
        refused("KUBERNETES_SERVICE_HOST=a/b", "KUBERNETES_SERVICE_HOST=", "expected a name");
    }
}
