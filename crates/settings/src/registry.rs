//! Every setting, once: its name, default and meaning, and when a change takes effect.
//!
//! Reading, `check-config`, the help texts, the planner's flags and `docs/settings.md` come from
//! this list. [`Variables`](crate::Variables) reads a variable only by its [`Setting`], so nothing
//! can be read that is not listed; a test checks that everything listed is read.

#![expect(non_upper_case_globals, reason = "the variables of one family are spelt IPv4 and IPv6")]

use self::DefaultValue::{Depends, Unset, Value};
use self::Flag::{Number, Switch};
use self::Group::{Cluster, Elsewhere, Enis, Family, Files, Nat, NotBuilt, Pool, Traces};
use self::TakesEffect::{AtStart, Live};

/// An environment variable.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// The section of `docs/settings.md` that lists it.
    pub group: Group,
    /// The value if the variable is unset or empty.
    pub default: DefaultValue,
    /// One sentence without a full stop.
    pub meaning: &'static str,
    /// When a change takes effect.
    pub takes_effect: TakesEffect,
    /// How much of it is built.
    pub support: Support,
    /// The flag of `tidepool plan` with the same meaning.
    pub flag: Option<Flag>,
    /// Where it may be set.
    pub place: Place,
    /// Whether nobody may see its value.
    pub is_secret: bool,
}

/// Where a setting may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the environment, and in the file that `TIDEPOOL_ENV_FILE` names.
    Anywhere,
    /// In the environment alone: it names the file, or the AWS SDK reads it there.
    Environment,
}

/// A section of `docs/settings.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// How large the pool is and how it changes.
    Pool,
    /// Which addresses pods have.
    Family,
    /// Pods and what is outside the VPC or of the other family.
    Nat,
    /// ENIs and the calls to EC2.
    Enis,
    /// The Kubernetes API server, and what it says.
    Cluster,
    /// Files, sockets and logs.
    Files,
    /// The export of traces.
    Traces,
    /// Features of amazon-vpc-cni-k8s that are not built.
    NotBuilt,
    /// What amazon-vpc-cni-k8s reads and this daemon has no use for.
    Elsewhere,
}

/// The value if a variable is unset or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// This value, read as if the variable had it.
    Value(&'static str),
    /// No value.
    Unset,
    /// A value that depends on something else, in words.
    Depends(&'static str),
}

/// When a changed setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// At the next SIGHUP.
    Live,
    /// When the daemon starts.
    AtStart,
}

/// How much of a setting is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// All of it.
    Full,
    /// A boolean with this one value built. The other value stops the start.
    OnlyBoolean(bool),
    /// Text for another part of amazon-vpc-cni-k8s. A value has no effect here, and is a warning unless it is one of
    /// `unless`, in upper or lower case.
    NoEffect {
        /// The values that ask for nothing else than what is done anyway.
        unless: &'static [&'static str],
        /// Why it has no effect or what to do instead: what follows "has no effect".
        why: &'static str,
    },
    /// Any text. No value of it asks for anything that is missing.
    Ignored,
}

/// A flag of `tidepool plan`, without its dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Sets the variable to `true`.
    Switch(&'static str),
    /// Sets the variable to the number that follows.
    Number(&'static str),
}

impl Setting {
    /// A setting that takes effect at the start, is built and has no flag.
    const fn new(
        name: &'static str,
        group: Group,
        default: DefaultValue,
        meaning: &'static str,
    ) -> Self {
        Self {
            name,
            group,
            default,
            meaning,
            takes_effect: AtStart,
            support: Support::Full,
            flag: None,
            place: Place::Anywhere,
            is_secret: false,
        }
    }

    const fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    const fn environment_only(self) -> Self {
        Self { place: Place::Environment, ..self }
    }

    const fn live(self) -> Self {
        Self { takes_effect: Live, ..self }
    }

    const fn flag(self, flag: Flag) -> Self {
        Self { flag: Some(flag), ..self }
    }

    const fn only(self, value: bool) -> Self {
        Self { support: Support::OnlyBoolean(value), ..self }
    }

    const fn no_effect(self, unless: &'static [&'static str], why: &'static str) -> Self {
        Self { support: Support::NoEffect { unless, why }, ..self }
    }

    const fn ignored(self) -> Self {
        Self { support: Support::Ignored, ..self }
    }
}

/// Declares each setting as a constant of its name and all of them as [`ALL`], in this order.
macro_rules! settings {
    ($($(#[$why:meta])* $name:ident: $group:expr, $default:expr, $meaning:literal
        $(, .$option:ident($($value:expr),*))*;)*) => {
        $(
            #[doc = $meaning]
            ///
            $(#[$why])*
            pub static $name: Setting =
                Setting::new(stringify!($name), $group, $default, $meaning)
                    $(.$option($($value),*))*;
        )*

        /// Every setting, in the order of `docs/settings.md`.
        pub static ALL: &[&Setting] = &[$(&$name),*];
    };
}

settings! {
    ENABLE_PREFIX_DELEGATION: Pool, Value("false"),
        "The pool holds /28 prefixes instead of single secondary addresses",
        .flag(Switch("prefix-delegation"));
    WARM_ENI_TARGET: Pool, Value("1"),
        "Free addresses to keep, counted in whole ENIs; without prefixes only",
        .live(), .flag(Number("warm-eni-target"));
    WARM_PREFIX_TARGET: Pool, Value("1"),
        "Wholly free prefixes to keep; with prefixes only",
        .live(), .flag(Number("warm-prefix-target"));
    WARM_IP_TARGET: Pool, Value("0"),
        "Free addresses to keep; above 0 it overrides `WARM_ENI_TARGET` and `WARM_PREFIX_TARGET`",
        .live(), .flag(Number("warm-ip-target"));
    MINIMUM_IP_TARGET: Pool, Value("0"),
        "Addresses to hold in all; above 0 it overrides `WARM_ENI_TARGET` and `WARM_PREFIX_TARGET`",
        .live(), .flag(Number("minimum-ip-target"));
    MAX_ENI: Pool, Unset,
        "The most ENIs to use, if the instance type allows more",
        .live(), .flag(Number("max-eni"));
    TIDEPOOL_MAX_PODS: Pool, Depends("by the instance type"),
        "The most addresses that the pool grows to",
        .live(), .flag(Number("max-pods"));
    TIDEPOOL_DELEGATED_PREFIXES: Pool, Unset,
        "Prefixes that containers beside the pods use; unset leaves what is on record, 0 takes all back",
        .live();
    IP_COOLDOWN_PERIOD: Pool, Value("30"),
        "Seconds for which a released address rests before another pod gets it",
        .live();
    /// A kubelet gives a pod's sandbox four minutes, and tries again ten seconds after a failure. A
    /// pod that waits is served sooner, in turn and with fewer calls than a pod that tries again. But the
    /// user sees a failure only at the end of the wait.
    TIDEPOOL_ADD_WAIT: Pool, Value("60s"),
        "The longest that a pod's ADD waits for an address that is on its way, or for its turn while \
         EC2 throttles",
        .live();
    /// Short compared with any call to EC2, and long enough to count the pods of a burst.
    TIDEPOOL_GROW_DELAY: Pool, Value("50ms"),
        "How long the pool may be too small before EC2 is called, so that one call serves pods that \
         come together",
        .live();
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`, `decreaseIPPoolInterval`.
    TIDEPOOL_SHRINK_DELAY: Pool, Value("30s"),
        "How long the pool must have been too large before something goes back to EC2",
        .live();
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/datastore/data_store.go`, `minENILifeTime`.
    TIDEPOOL_MIN_ENI_AGE: Pool, Value("60s"),
        "How long a new ENI is kept at least",
        .live();
    /// A node attaches what it has created within seconds, within minutes if EC2 throttles.
    TIDEPOOL_LEAK_AGE: Pool, Value("1h"),
        "How old an unattached ENI with the tags of `CLUSTER_NAME` must be for any node of the cluster \
         to delete it",
        .live();
    DISABLE_LEAKED_ENI_CLEANUP: Pool, Value("false"),
        "The node deletes no ENI that another node has created",
        .live();

    ENABLE_IPv6: Family, Value("false"),
        "Pods have IPv6 addresses",
        .flag(Switch("ipv6"));
    ENABLE_IPv4: Family, Depends("the opposite of `ENABLE_IPv6`"),
        "Pods have IPv4 addresses";
    TIDEPOOL_DUAL_STACK: Family, Value("required"),
        "With both families, what a pod needs to start: `required` an address of each, `preferred` of one if the \
         other family has none in time",
        .live();
    DISABLE_POD_V6: Family, Value("false"),
        "New pods on IPv4 have IPv6 switched off",
        .live();

    AWS_VPC_K8S_CNI_EXTERNALSNAT: Nat, Value("false"),
        "Something else translates pods' source addresses, such as a NAT gateway",
        .live();
    AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: Nat, Unset,
        "IPv4 ranges to which pods keep their addresses beside those of the VPC, with commas",
        .live();
    AWS_VPC_K8S_CNI_RANDOMIZESNAT: Nat, Value("prng"),
        "How source ports are chosen: `prng` at random, `hashrandom` by a hash, `none`: the pod's own if it is free",
        .live();
    AWS_VPC_CNI_NODE_PORT_SUPPORT: Nat, Value("true"),
        "Node ports lead to pods on secondary ENIs",
        .live();
    AWS_VPC_K8S_CNI_CONNMARK: Nat, Value("0x80"),
        "The bits that mark connections which leave by the primary ENI, in hexadecimal or decimal",
        .live();
    AWS_EXTERNAL_SERVICE_CIDRS: Nat, Unset,
        "IPv4 ranges that pods of all ENIs reach through the main route table, with commas",
        .live();
    AWS_VPC_K8S_CNI_VETHPREFIX: Nat, Value("eni"),
        "With what the names of pods' host interfaces start, as `vethPrefix` in the conflist says",
        .live();
    ENABLE_V4_EGRESS: Nat, Value("true"),
        "New pods on IPv6 reach IPv4 addresses through the node",
        .live();
    ENABLE_V6_EGRESS: Nat, Value("false"),
        "New pods on IPv4 reach IPv6 addresses through the node",
        .live();

    AWS_MANAGE_ENIS_NON_SCHEDULABLE: Enis, Value("false"),
        "The pool follows its targets also while the node is cordoned",
        .live();
    DISABLE_NETWORK_RESOURCE_PROVISIONING: Enis, Value("false"),
        "Nothing is changed at EC2: pods get what somebody else has attached and assigned",
        .live();
    ENABLE_IMDS_ONLY_MODE: Enis, Value("false"),
        "As above, and EC2 is not even asked: the metadata service shows what there is";
    CLUSTER_NAME: Enis, Unset,
        "New ENIs get the tags `cluster.k8s.amazonaws.com/name` and `eks:eni:owner`";
    ADDITIONAL_ENI_TAGS: Enis, Value("{}"),
        "More tags for new ENIs, a JSON object; keys with `k8s.amazonaws.com` are left out, with a \
         warning";
    MANAGE_UNTAGGED_ENI: Enis, Value("true"),
        "An attached ENI that has no owner's tag may serve pods";
    ENABLE_SUBNET_DISCOVERY: Enis, Value("true"),
        "New ENIs go to any subnet that is tagged for pods; with `false` to the primary ENI's, whatever the tags";
    AWS_EC2_ENDPOINT: Enis, Unset,
        "Another EC2 endpoint; it overrides those of the SDK's own variables";
    /// This variable and those that follow are read by the SDK. Source: AWS, "Service-specific endpoints".
    AWS_ENDPOINT_URL_EC2: Enis, Unset,
        "Another EC2 endpoint, as all AWS SDKs have it",
        .environment_only();
    AWS_ENDPOINT_URL_STS: Enis, Unset,
        "Another endpoint of STS, which gives credentials to a service account",
        .environment_only();
    AWS_ENDPOINT_URL: Enis, Unset,
        "Another endpoint of EC2 and STS, unless the service has one of its own",
        .environment_only();
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: Enis, Value("false"),
        "The three endpoints with `AWS_ENDPOINT_URL` in their names have no effect",
        .environment_only();
    AWS_EC2_METADATA_SERVICE_ENDPOINT: Enis, Unset,
        "Another endpoint of the metadata service",
        .environment_only();
    AWS_CONTAINER_CREDENTIALS_FULL_URI: Enis, Unset,
        "Where the agent of EKS Pod Identity listens; EKS sets it",
        .environment_only();
    /// Names and meanings are those of Go's `net/http`. <https://pkg.go.dev/net/http#ProxyFromEnvironment>.
    HTTPS_PROXY: Enis, Unset,
        "The proxy to EC2 and STS by HTTPS, `http://[USER:PASSWORD@]HOST[:PORT]`; also in lower case";
    HTTP_PROXY: Enis, Unset,
        "The proxy to endpoints that are `http://…`; also in lower case";
    NO_PROXY: Enis, Unset,
        "Hosts without a proxy: names with all below them, addresses and CIDRs, with commas; also in lower case";
    /// Source: AWS, "Using AWS_CA_BUNDLE", as all AWS SDKs but the one for Rust have it.
    AWS_CA_BUNDLE: Enis, Unset,
        "A file of PEM certificates that EC2, STS and proxies are trusted by, in place of the system's";
    HTTP_TIMEOUT: Enis, Value("10"),
        "Seconds for each request to EC2, at least 10";
    TIDEPOOL_RAISE_NEIGHBOUR_LIMITS: Enis, Value("true"),
        "The kernel's limits of ARP and NDP entries (`gc_thresh2`, `gc_thresh3`) are raised where they are too low; `false`: \
         they are only named";
    TIDEPOOL_TCP_ESTABLISHED_TIMEOUT: Enis, Depends("that of the primary ENI"),
        "Seconds for which a new ENI remembers an idle TCP connection, 60 to 432000",
        .live();
    TIDEPOOL_UDP_STREAM_TIMEOUT: Enis, Depends("that of the primary ENI"),
        "Seconds for which a new ENI remembers an idle UDP flow with more than one request and answer, 60 to 180",
        .live();
    TIDEPOOL_UDP_TIMEOUT: Enis, Depends("that of the primary ENI"),
        "Seconds for which a new ENI remembers any other idle UDP flow, 30 to 60",
        .live();
    AWS_VPC_ENI_MTU: Enis, Value("9001"),
        "MTU of ENIs in bytes, 576 (with IPv6 1280) to 9001; no pod's link gets a larger one";
    POD_MTU: Enis, Depends("that of `AWS_VPC_ENI_MTU`"),
        "MTU of pods' links in bytes, at most that of ENIs; a smaller `mtu` in the conflist overrides it";

    TIDEPOOL_KUBERNETES: Cluster, Value("auto"),
        "Whether the API server is used: `auto` where its address and the node's name are known, `true`, `false`";
    MY_NODE_NAME: Cluster, Unset,
        "The node's name at the API server; without it the API server is not used";
    CLUSTER_ENDPOINT: Cluster, Depends("where the kubelet says"),
        "Another address of the API server";
    /// Source: Kubernetes, "Accessing the API from within a Pod".
    KUBERNETES_SERVICE_HOST: Cluster, Unset,
        "The API server's name or address; the kubelet sets it in each pod",
        .environment_only();
    KUBERNETES_SERVICE_PORT: Cluster, Value("443"),
        "The API server's port; the kubelet sets it in each pod",
        .environment_only();
    /// Source: as above.
    TIDEPOOL_SERVICE_ACCOUNT: Cluster, Value("/var/run/secrets/kubernetes.io/serviceaccount"),
        "The directory of the service account, with `token` and `ca.crt`";
    TIDEPOOL_EVENTS: Cluster, Value("true"),
        "Events are sent: on a pod that gets no address, on the node if a permission is missing or a subnet is full";
    TIDEPOOL_EARLY_DEMAND: Cluster, Value("true"),
        "Pods that are bound to the node and have not started count as demand, so that their addresses come before their ADDs";
    TIDEPOOL_NODE_ANNOTATIONS: Cluster, Value("false"),
        "The node is annotated with its capacity, its max pods and its prefixes";
    TIDEPOOL_NODE_CONDITION: Cluster, Value("false"),
        "The node's condition `NetworkUnavailable` says whether a pod could get an address";
    TIDEPOOL_STARTUP_TAINT: Cluster, Unset,
        "The key of a taint that is taken off the node once a pod could get an address";
    ANNOTATE_POD_IP: Cluster, Value("false"),
        "Pods are annotated with their address, `vpc.amazonaws.com/pod-ips`";
    TIDEPOOL_SETTINGS: Cluster, Value("kube-system/tidepool-settings"),
        "The `ConfigMap` with live settings for all nodes, `NAMESPACE/NAME`; `off`: none is read";
    TIDEPOOL_SETTINGS_LABEL: Cluster, Value("eks.amazonaws.com/nodegroup"),
        "The node label that names the node's group, whose `ConfigMap` is `NAME-GROUP`";
    AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: Cluster, Value("false"),
        "Custom networking: new ENIs go where the node's ENIConfig says, and the primary ENI carries no pods",
        .flag(Switch("custom-networking"));
    ENI_CONFIG_ANNOTATION_DEF: Cluster, Value("k8s.amazonaws.com/eniConfig"),
        "The node annotation that names the ENIConfig";
    ENI_CONFIG_LABEL_DEF: Cluster, Value("k8s.amazonaws.com/eniConfig"),
        "The node label that names the ENIConfig, unless the annotation does";
    /// Unset as in the code of amazon-vpc-cni-k8s, not `standard` as in its manifest: without an agent on the node every
    /// ADD would fail.
    NETWORK_POLICY_ENFORCING_MODE: Cluster, Unset,
        "How pods start until the network policy agent knows their policies: `standard` open, `strict` closed; unset or \
         `none`: without the agent";

    TIDEPOOL_ENV_FILE: Files, Unset,
        "A file with more settings, which is read at the start and again at each SIGHUP",
        .environment_only();
    TIDEPOOL_SOCKET: Files, Value(crate::DEFAULT_SOCKET),
        "The socket on which the daemon serves the plugin; for root alone";
    TIDEPOOL_RUNTIME_SOCKET: Files, Value("/run/containerd/containerd.sock"),
        "The container runtime's CRI v1 socket, on which the daemon asks each minute for its \
         sandboxes; `off`: it asks nobody";
    MY_POD_NAME: Files, Unset,
        "The daemon's pod; a second daemon, which waits for this one to end, names it in its log";
    DISABLE_METRICS: Files, Value("false"),
        "No metrics are served on port 61678";
    DISABLE_INTROSPECTION: Files, Value("false"),
        "No introspection is served";
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/introspect.go`.
    INTROSPECTION_BIND_ADDRESS: Files, Value("127.0.0.1:61679"),
        "Where the introspection is served, `HOST:PORT` or `unix:/PATH`; another host than this machine is taken for it, with \
         a warning";
    AWS_VPC_K8S_CNI_BACKING_STORE: Files, Value("/var/run/aws-node/ipam.json"),
        "The checkpoint of amazon-vpc-cni-k8s, read at the first start and never written; the daemon \
         keeps its own files in the same directory";
    AWS_VPC_K8S_CNI_LOGLEVEL: Files, Value("debug"),
        "The least important lines to log: `debug`, `info`, `warn`, `error` or `fatal`",
        .live();
    AWS_VPC_K8S_CNI_LOG_FILE: Files, Value("/host/var/log/aws-routed-eni/ipamd.log"),
        "Where log lines go: `stdout`, `stderr`, or a path, and then to `stdout` too";
    AWS_VPC_K8S_PLUGIN_LOG_FILE: Files, Value("/var/log/aws-routed-eni/plugin.log"),
        "Where the plugin's log lines go: `stderr`, or a path on the node; written to the conflist";
    AWS_VPC_K8S_PLUGIN_LOG_LEVEL: Files, Value("debug"),
        "The least important lines in the plugin's log, as for `AWS_VPC_K8S_CNI_LOGLEVEL`; written to the conflist";
    /// The default of amazon-vpc-cni-k8s is not to chain a further plugin for it. Ours needs none, and a pod without the
    /// annotations has no limit.
    ENABLE_BANDWIDTH_PLUGIN: Files, Value("true"),
        "Pods' bandwidth is limited as their annotations ask; written to the conflist";
    HOST_CNI_BIN_PATH: Files, Value("/host/opt/cni/bin"),
        "Where `ipamd init`, `install` and `run --install` put the plugin: the runtime's directory, as this process sees it";
    HOST_CNI_CONFDIR_PATH: Files, Value("/host/etc/cni/net.d"),
        "Where `ipamd install` and `run --install` put the conflist: the runtime's directory, as this process sees it";
    TIDEPOOL_LOG_FORMAT: Files, Value("json"),
        "How log lines are written: `json`, or `text` for people";

    /// This variable and those that follow are OpenTelemetry's. Source: OpenTelemetry, "Environment Variable Specification".
    OTEL_EXPORTER_OTLP_ENDPOINT: Traces, Unset,
        "Where spans go, for example `http://10.0.0.1:4318`; without it none is made";
    OTEL_EXPORTER_OTLP_PROTOCOL: Traces, Value("http/protobuf"),
        "How they go: `http/protobuf` or `grpc`";
    OTEL_EXPORTER_OTLP_HEADERS: Traces, Unset,
        "Headers of each export, such as a key: `name=value`, with commas between, percent-encoded; never shown",
        .secret();
    OTEL_SERVICE_NAME: Traces, Value("ipamd"),
        "The service that spans are of";
    OTEL_RESOURCE_ATTRIBUTES: Traces, Unset,
        "What all spans carry beside what the daemon knows: `key=value`, with commas between, percent-encoded";
    OTEL_TRACES_SAMPLER: Traces, Value("parentbased_always_on"),
        "Which traces are recorded: `always_on`, `always_off`, `traceidratio`; after `parentbased_`, the caller decides for its own";
    OTEL_TRACES_SAMPLER_ARG: Traces, Value("1"),
        "The share of traces that `traceidratio` records, from 0 to 1";

    ENABLE_POD_ENI: NotBuilt, Value("false"),
        "Pods may have security groups of their own, on branch ENIs",
        .only(false);
    ENABLE_MULTI_NIC: NotBuilt, Value("false"),
        "Pods use network cards other than the first",
        .only(false);
    POD_SECURITY_GROUP_ENFORCING_MODE: NotBuilt, Value("strict"),
        "How pods with security groups of their own are connected",
        .no_effect(&["strict"], "since no pod has security groups of its own yet");
    DISABLE_TCP_EARLY_DEMUX: NotBuilt, Value("false"),
        "The kernel does without early demultiplexing, which probes of pods on branch ENIs need",
        .no_effect(&["false", "0", "f"], "since no pod is on a branch ENI yet");
    AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE: NotBuilt, Value("/var/log/aws-routed-eni/egress-v4-plugin.log"),
        "The log of the plugin through which pods on IPv6 reach IPv4 addresses",
        .no_effect(
            &["/var/log/aws-routed-eni/egress-v4-plugin.log"],
            "since aws-cni does that itself, and logs to its own file"
        );
    AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE: NotBuilt, Value("/var/log/aws-routed-eni/egress-v6-plugin.log"),
        "The log of the plugin through which pods on IPv4 reach IPv6 addresses",
        .no_effect(
            &["/var/log/aws-routed-eni/egress-v6-plugin.log"],
            "since aws-cni does that itself, and logs to its own file"
        );

    ENABLE_NFTABLES: Elsewhere, Unset,
        "Deprecated in amazon-vpc-cni-k8s since 1.13.2",
        .no_effect(&["false"], "there either; leave it out");
    AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER: Elsewhere, Unset,
        "Deprecated in amazon-vpc-cni-k8s since 1.12.1",
        .no_effect(&["true"], "there either, since reverse-path filtering is always set as pods need it");
    USE_CLOUDWATCH: Elsewhere, Unset,
        "Of cni-metrics-helper: metrics go to CloudWatch",
        .no_effect(&["false", "no"], "on the daemon; set it on cni-metrics-helper");
    USE_PROMETHEUS: Elsewhere, Unset,
        "Of cni-metrics-helper: it serves metrics itself",
        .no_effect(&["false", "no"], "on the daemon; set it on cni-metrics-helper");
    METRIC_UPDATE_INTERVAL: Elsewhere, Unset,
        "Of cni-metrics-helper: seconds between two polls",
        .no_effect(&[], "on the daemon; set it on cni-metrics-helper");
    AWS_CLUSTER_ID: Elsewhere, Unset,
        "Of cni-metrics-helper: the name of the cluster in CloudWatch",
        .no_effect(&[], "on the daemon; set it on cni-metrics-helper, or `CLUSTER_NAME` here");
    /// Set by EKS in each pod whose service account has a role.
    AWS_REGION: Elsewhere, Unset,
        "The region; the daemon takes it from the metadata service",
        .ignored();
    VPC_CNI_VERSION: Elsewhere, Unset,
        "The version of amazon-vpc-cni-k8s, for the API's logs alone",
        .ignored();
}

/// Other names of settings, which count if the setting itself is unset.
pub(crate) static ALIASES: [(&str, &Setting); 3] =
    [("http_proxy", &HTTP_PROXY), ("https_proxy", &HTTPS_PROXY), ("no_proxy", &NO_PROXY)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    /// No value is valid for every setting, so the test skips a setting that this value does not change.
    #[test]
    fn every_setting_is_read() {
        let read = |set: &[(&str, &str)]| {
            let owned = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Settings::read(&owned.collect())
        };
        for setting in ALL.iter().filter(|setting| setting.support != Support::Ignored) {
            assert_ne!(read(&[(setting.name, "?")]), read(&[]), "{}", setting.name);
        }
    }

    #[test]
    fn meanings_are_one_sentence_for_a_table() {
        for Setting { name, meaning, .. } in ALL {
            assert!(meaning.starts_with(|first: char| first.is_uppercase()), "{name}: {meaning}");
            assert!(!meaning.ends_with('.') && !meaning.contains(['|', '\n']), "{name}: {meaning}");
            assert!(meaning.split(' ').count() <= 25, "{name}: {meaning}");
        }
    }
}
