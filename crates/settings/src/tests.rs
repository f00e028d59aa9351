//! Each variable with good and bad values.

use ipam::policy::{EgressPolicy, Limits, SourceNatPolicy, SourcePorts};

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::read(&owned.collect())
}

fn default_traces() -> TraceSettings {
    let attributes = vec![("service.name".to_owned(), "ipamd".to_owned())];
    TraceSettings {
        collector: None,
        headers: Headers::default(),
        attributes,
        by_parent: true,
        share: 1.0,
    }
}

#[test]
fn leaked_eni_cleanup_can_be_off() {
    let age = |variables: &[(&str, &str)]| read(variables).unwrap().leak_age;
    assert_eq!(age(&[("TIDEPOOL_LEAK_AGE", "90m")]), Some(Duration::from_secs(5400)));
    assert_eq!(age(&[("DISABLE_LEAKED_ENI_CLEANUP", "true")]), None);
    assert!(read(&[("TIDEPOOL_LEAK_AGE", "25h")]).is_err());
}

#[test]
fn defaults_are_those_of_the_manifest() {
    let settings = read(&[]).unwrap();
    let warm = WarmSettings { warm_eni: 1, warm_ip: 0, minimum_ip: 0, warm_prefix: 1 };
    assert_eq!(warm, WarmSettings::default());
    let expect = Settings {
        kind: BlockKind::V4Address,
        dual: None,
        warm,
        placement: Placement::LikePrimary,
        provisioning: Provisioning::WhileSchedulable,
        eni_config_keys: EniConfigKeys {
            annotation: "k8s.amazonaws.com/eniConfig".to_owned(),
            label: "k8s.amazonaws.com/eniConfig".to_owned(),
        },
        api_server: ApiServer::Unused(
            "KUBERNETES_SERVICE_HOST is not set, as the kubelet does in each pod",
        ),
        events: true,
        on_node: OnNode {
            early_demand: true,
            early_demand_is_set: false,
            cordon_is_set: false,
            annotations: false,
            condition: false,
            startup_taint: None,
            pod_annotations: false,
        },
        settings_maps: Some(SettingsMaps {
            namespace: "kube-system".to_owned(),
            name: "tidepool-settings".to_owned(),
            group_label: "eks.amazonaws.com/nodegroup".to_owned(),
            is_set: false,
        }),
        node_name: None,
        max_enis: None,
        max_pods: None,
        delegated_prefixes: None,
        cooldown: Duration::from_secs(30),
        add_wait: Duration::from_secs(60),
        grow_delay: Duration::from_millis(50),
        shrink_delay: Duration::from_secs(30),
        min_eni_age: Duration::from_secs(60),
        leak_age: Some(Duration::from_secs(3600)),
        cluster: None,
        eni_tags: BTreeMap::new(),
        manage_untagged: true,
        connection_tracking: ConnectionTracking::default(),
        mtu: 9001,
        pod_mtu: 9001,
        pod_ipv6: PodIpv6::AsItIs,
        nat: NatPolicy::default(),
        network_policies: None,
        raise_neighbour_limits: true,
        ec2_endpoint: None,
        http_proxy: None,
        https_proxy: None,
        no_proxy: NoProxy::default(),
        ca_bundle: None,
        http_timeout: Duration::from_secs(10),
        env_file: None,
        socket: "/var/run/aws-node/ipamd.sock".into(),
        pod_name: None,
        runtime_socket: Some("/run/containerd/containerd.sock".into()),
        metrics_port: Some(61678),
        introspection: Some(BindAddress::Loopback("127.0.0.1:61679".parse().unwrap())),
        checkpoint: "/var/run/aws-node/ipam.json".into(),
        state_directory: "/var/run/aws-node".into(),
        log_level: LogLevel::Debug,
        log_format: LogFormat::Json,
        traces: default_traces(),
        log_target: LogTarget::File("/host/var/log/aws-routed-eni/ipamd.log".into()),
        install: InstallSettings {
            plugins: "/host/opt/cni/bin".into(),
            conflists: "/host/etc/cni/net.d".into(),
            plugin_log_file: Some("/var/log/aws-routed-eni/plugin.log".into()),
            plugin_log_level: LogLevel::Debug,
            limits_bandwidth: true,
        },
        warnings: Vec::new(),
    };
    assert_eq!(settings, expect);
}

/// The environment of the incumbent's DaemonSet, as its manifest of v1.23.1 sets it.
#[test]
fn incumbents_manifest_is_accepted() {
    let manifest = [
        ("ADDITIONAL_ENI_TAGS", "{}"),
        ("AWS_VPC_CNI_NODE_PORT_SUPPORT", "true"),
        ("AWS_VPC_ENI_MTU", "9001"),
        ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "false"),
        ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "false"),
        ("AWS_VPC_K8S_CNI_LOGLEVEL", "DEBUG"),
        ("AWS_VPC_K8S_CNI_LOG_FILE", "/host/var/log/aws-routed-eni/ipamd.log"),
        ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "prng"),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "eni"),
        ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "/var/log/aws-routed-eni/plugin.log"),
        ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "DEBUG"),
        ("DISABLE_INTROSPECTION", "false"),
        ("DISABLE_METRICS", "false"),
        ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "false"),
        ("ENABLE_IMDS_ONLY_MODE", "false"),
        ("ENABLE_IPv4", "true"),
        ("ENABLE_IPv6", "false"),
        ("ENABLE_MULTI_NIC", "false"),
        ("ENABLE_POD_ENI", "false"),
        ("ENABLE_PREFIX_DELEGATION", "false"),
        ("ENABLE_SUBNET_DISCOVERY", "true"),
        ("NETWORK_POLICY_ENFORCING_MODE", "standard"),
        ("VPC_CNI_VERSION", "v1.23.1"),
        ("WARM_ENI_TARGET", "1"),
        ("WARM_PREFIX_TARGET", "1"),
    ];
    let settings = read(&manifest).unwrap();
    // Its DaemonSet has the agent.
    let network_policies = Some(EnforcingMode::Standard);
    assert_eq!(settings, Settings { network_policies, ..read(&[]).unwrap() });
}

#[test]
fn good_values_are_read() {
    let variables = [
        ("ENABLE_PREFIX_DELEGATION", "T"),
        ("WARM_IP_TARGET", "5"),
        ("MINIMUM_IP_TARGET", "20"),
        ("WARM_ENI_TARGET", "0"),
        ("WARM_PREFIX_TARGET", "2"),
        ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
        ("ENI_CONFIG_ANNOTATION_DEF", "an/annotation"),
        ("ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/zone"),
        ("CLUSTER_ENDPOINT", "https://api:6443"),
        ("TIDEPOOL_SERVICE_ACCOUNT", "/etc/account"),
        ("TIDEPOOL_EVENTS", "false"),
        ("TIDEPOOL_EARLY_DEMAND", "false"),
        ("TIDEPOOL_NODE_ANNOTATIONS", "true"),
        ("TIDEPOOL_NODE_CONDITION", "true"),
        ("TIDEPOOL_STARTUP_TAINT", "tidepool.io/agent-not-ready"),
        ("ANNOTATE_POD_IP", "true"),
        ("TIDEPOOL_SETTINGS", "off"),
        ("MY_NODE_NAME", "node-1"),
        ("MAX_ENI", "3"),
        ("TIDEPOOL_MAX_PODS", "58"),
        ("TIDEPOOL_DELEGATED_PREFIXES", "2"),
        ("IP_COOLDOWN_PERIOD", "0"),
        ("TIDEPOOL_ADD_WAIT", "2500ms"),
        ("TIDEPOOL_GROW_DELAY", "1s"),
        ("TIDEPOOL_SHRINK_DELAY", "5m"),
        ("TIDEPOOL_MIN_ENI_AGE", "2s"),
        ("TIDEPOOL_LEAK_AGE", "2h"),
        ("CLUSTER_NAME", "blue"),
        ("ADDITIONAL_ENI_TAGS", r#"{"team":"net","node.k8s.amazonaws.com/x":"y"}"#),
        ("MANAGE_UNTAGGED_ENI", "0"),
        ("TIDEPOOL_TCP_ESTABLISHED_TIMEOUT", "432000"),
        ("TIDEPOOL_UDP_STREAM_TIMEOUT", "60"),
        ("AWS_VPC_ENI_MTU", "1500"),
        ("POD_MTU", "1400"),
        ("DISABLE_POD_V6", "true"),
        ("AWS_EC2_ENDPOINT", "http://127.0.0.1:4000"),
        ("HTTP_PROXY", "proxy:3128"),
        ("https_proxy", "http://u:p@proxy"),
        ("NO_PROXY", "10.0.0.0/8,.internal"),
        ("no_proxy", "ignored"),
        ("AWS_CA_BUNDLE", "/etc/ssl/ours.pem"),
        ("TIDEPOOL_RAISE_NEIGHBOUR_LIMITS", "false"),
        ("HTTP_TIMEOUT", "30"),
        ("TIDEPOOL_ENV_FILE", "/etc/tidepool/env"),
        ("TIDEPOOL_SOCKET", "/run/tp/ipamd.sock"),
        ("MY_POD_NAME", "aws-node-1"),
        ("TIDEPOOL_RUNTIME_SOCKET", "off"),
        ("DISABLE_METRICS", "true"),
        ("INTROSPECTION_BIND_ADDRESS", "unix:/run/tp/introspection.sock"),
        ("AWS_VPC_K8S_CNI_BACKING_STORE", "/var/lib/cni/ipam.json"),
        ("AWS_VPC_K8S_CNI_LOGLEVEL", "Warn"),
        ("TIDEPOOL_LOG_FORMAT", "text"),
        ("AWS_VPC_K8S_CNI_LOG_FILE", "STDERR"),
    ];
    let settings = read(&variables).unwrap();
    let expect = Settings {
        kind: BlockKind::V4Prefix,
        dual: None,
        warm: WarmSettings { warm_eni: 0, warm_ip: 5, minimum_ip: 20, warm_prefix: 2 },
        placement: Placement::ByEniConfig,
        provisioning: Provisioning::WhileSchedulable,
        eni_config_keys: EniConfigKeys {
            annotation: "an/annotation".to_owned(),
            label: "topology.kubernetes.io/zone".to_owned(),
        },
        api_server: ApiServer::Used {
            url: ServiceUrl::parse("https://api:6443").unwrap(),
            service_account: "/etc/account".into(),
            node_name: "node-1".to_owned(),
        },
        events: false,
        on_node: OnNode {
            early_demand: false,
            early_demand_is_set: true,
            cordon_is_set: false,
            annotations: true,
            condition: true,
            startup_taint: Some("tidepool.io/agent-not-ready".to_owned()),
            pod_annotations: true,
        },
        settings_maps: None,
        node_name: Some("node-1".to_owned()),
        max_enis: Some(3),
        max_pods: Some(58),
        delegated_prefixes: Some(2),
        cooldown: Duration::ZERO,
        add_wait: Duration::from_millis(2500),
        grow_delay: Duration::from_secs(1),
        shrink_delay: Duration::from_secs(300),
        min_eni_age: Duration::from_secs(2),
        leak_age: Some(Duration::from_secs(7200)),
        cluster: Some("blue".to_owned()),
        eni_tags: BTreeMap::from([("team".to_owned(), "net".to_owned())]),
        manage_untagged: false,
        connection_tracking: ConnectionTracking {
            tcp_established: Some(432_000),
            udp_stream: Some(60),
            udp: None,
        },
        mtu: 1500,
        pod_mtu: 1400,
        pod_ipv6: PodIpv6::Off,
        nat: NatPolicy::default(),
        network_policies: None,
        raise_neighbour_limits: false,
        ec2_endpoint: ServiceUrl::parse("http://127.0.0.1:4000").ok(),
        http_proxy: ProxyUrl::parse("http://proxy:3128").ok(),
        https_proxy: ProxyUrl::parse("http://u:p@proxy").ok(),
        no_proxy: NoProxy::parse("10.0.0.0/8,.internal"),
        ca_bundle: Some("/etc/ssl/ours.pem".into()),
        http_timeout: Duration::from_secs(30),
        env_file: Some("/etc/tidepool/env".into()),
        socket: "/run/tp/ipamd.sock".into(),
        pod_name: Some("aws-node-1".to_owned()),
        runtime_socket: None,
        metrics_port: None,
        introspection: Some(BindAddress::Unix("/run/tp/introspection.sock".into())),
        checkpoint: "/var/lib/cni/ipam.json".into(),
        state_directory: "/var/lib/cni".into(),
        log_level: LogLevel::Warn,
        log_format: LogFormat::Text,
        traces: default_traces(),
        log_target: LogTarget::Stderr,
        install: InstallSettings {
            plugins: "/host/opt/cni/bin".into(),
            conflists: "/host/etc/cni/net.d".into(),
            plugin_log_file: Some("/var/log/aws-routed-eni/plugin.log".into()),
            plugin_log_level: LogLevel::Debug,
            limits_bandwidth: true,
        },
        warnings: vec![
            "ADDITIONAL_ENI_TAGS: tag \"node.k8s.amazonaws.com/x\" is left out, since keys with \
             k8s.amazonaws.com are ipamd's own"
                .to_owned(),
        ],
    };
    assert_eq!(settings, expect);
}

#[test]
fn empty_value_counts_as_unset() {
    for name in ["WARM_IP_TARGET", "ENABLE_IPv6", "CLUSTER_NAME", "ADDITIONAL_ENI_TAGS", "MAX_ENI"]
    {
        assert_eq!(read(&[(name, "")]), read(&[]), "{name}");
    }
}

#[test]
fn boolean_has_the_spellings_of_go() {
    for (spellings, expect) in [
        (["1", "t", "T", "TRUE", "true", "True"], BlockKind::V4Prefix),
        (["0", "f", "F", "FALSE", "false", "False"], BlockKind::V4Address),
    ] {
        for spelling in spellings {
            let settings = read(&[("ENABLE_PREFIX_DELEGATION", spelling)]).unwrap();
            assert_eq!(settings.kind, expect, "{spelling}");
        }
    }
}

#[test]
fn bad_value_is_named_with_what_is_allowed() {
    let number = |least: u32, most: u32| format!("expected a whole number from {least} to {most}");
    let ranges = |shortest: u8| {
        format!(
            "expected at most 1000 IPv4 ranges like 10.0.0.0/8, with commas, of {shortest} bits or more"
        )
    };
    let mark = "expected 0x1 to 0xffffffff, or 1 to 4294967295";
    let prefix = "expected up to 4 letters and digits, and none of eth, vlan and lo, whose interfaces \
                  are not pods'";
    let bad = [
        ("WARM_ENI_TARGET", "two", number(0, 65535)),
        ("WARM_ENI_TARGET", "-1", number(0, 65535)),
        ("WARM_IP_TARGET", "1.5", number(0, u32::MAX)),
        ("WARM_IP_TARGET", " 5", number(0, u32::MAX)),
        ("MINIMUM_IP_TARGET", "-5", number(0, u32::MAX)),
        ("WARM_PREFIX_TARGET", "99999", number(0, 65535)),
        ("MAX_ENI", "0", number(1, 65535)),
        ("TIDEPOOL_MAX_PODS", "0", number(1, u32::MAX)),
        ("TIDEPOOL_DELEGATED_PREFIXES", "1001", number(0, 1000)),
        ("IP_COOLDOWN_PERIOD", "30s", number(0, u32::MAX)),
        ("HTTP_TIMEOUT", "5", number(10, u32::MAX)),
        ("TIDEPOOL_TCP_ESTABLISHED_TIMEOUT", "59", number(60, 432_000)),
        ("TIDEPOOL_TCP_ESTABLISHED_TIMEOUT", "432001", number(60, 432_000)),
        ("TIDEPOOL_UDP_STREAM_TIMEOUT", "181", number(60, 180)),
        ("TIDEPOOL_UDP_TIMEOUT", "61", number(30, 60)),
        ("AWS_VPC_ENI_MTU", "575", "expected a whole number from 576 to 9001".into()),
        ("ENABLE_PREFIX_DELEGATION", "yes", "expected true or false".into()),
        ("MANAGE_UNTAGGED_ENI", "tRuE", "expected true or false".into()),
        ("ENABLE_IPv6", "on", "expected true or false".into()),
        ("TIDEPOOL_ADD_WAIT", "15", "expected a time span like 500ms or 15s, at most 3m".into()),
        ("TIDEPOOL_ADD_WAIT", "4m", "expected a time span like 500ms or 15s, at most 3m".into()),
        (
            "ADDITIONAL_ENI_TAGS",
            "team=net",
            "expected a JSON object of strings like {\"team\":\"net\"}".into(),
        ),
        (
            "ADDITIONAL_ENI_TAGS",
            "{\"n\":1}",
            "expected a JSON object of strings like {\"team\":\"net\"}".into(),
        ),
        ("AWS_EC2_ENDPOINT", "127.0.0.1:4000", "expected http://HOST[:PORT] or https://…".into()),
        ("AWS_EC2_ENDPOINT", "http:///x", "expected http://HOST[:PORT] or https://…".into()),
        ("AWS_EC2_ENDPOINT", "http://a:0", "expected http://HOST[:PORT] or https://…".into()),
        ("AWS_CA_BUNDLE", "ours.pem", "expected an absolute path".into()),
        (
            "HTTPS_PROXY",
            "socks5://proxy",
            "expected http://[USER:PASSWORD@]HOST[:PORT] or https://…".into(),
        ),
        ("POD_MTU", "575", "expected a whole number from 576 to 9001".into()),
        ("TIDEPOOL_SOCKET", "ipamd.sock", "expected an absolute path".into()),
        ("TIDEPOOL_RUNTIME_SOCKET", "containerd.sock", "expected off or an absolute path".into()),
        ("AWS_VPC_K8S_CNI_BACKING_STORE", "/", "expected the absolute path of a file".into()),
        (
            "AWS_VPC_K8S_CNI_LOGLEVEL",
            "verbose",
            "expected debug, info, warn, error or fatal".into(),
        ),
        ("TIDEPOOL_LOG_FORMAT", "xml", "expected json or text".into()),
        (
            "AWS_VPC_K8S_CNI_LOG_FILE",
            "ipamd.log",
            "expected stdout, stderr or an absolute path".into(),
        ),
        ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "stdout", "expected stderr or an absolute path".into()),
        (
            "AWS_VPC_K8S_PLUGIN_LOG_LEVEL",
            "trace",
            "expected debug, info, warn, error or fatal".into(),
        ),
        ("HOST_CNI_BIN_PATH", "bin", "expected an absolute path".into()),
        ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "PRNG", "expected prng, hashrandom or none".into()),
        ("AWS_EXTERNAL_SERVICE_CIDRS", "10.0.0.0/8,0.0.0.0/0", ranges(1)),
        ("AWS_EXTERNAL_SERVICE_CIDRS", "10.0.0.0/33", ranges(1)),
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.0.0.0/8 10.1.0.0/16", ranges(0)),
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "fd00::/8", ranges(0)),
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.0.0.1", ranges(0)),
        ("AWS_VPC_K8S_CNI_CONNMARK", "0", mark.into()),
        ("AWS_VPC_K8S_CNI_CONNMARK", "0x100000000", mark.into()),
        ("AWS_VPC_K8S_CNI_CONNMARK", "-1", mark.into()),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "eth", prefix.into()),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "a\"b", prefix.into()),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "enis0", prefix.into()),
    ];
    for (name, value, allowed) in bad {
        let error = read(&[(name, value)]).unwrap_err().to_string();
        assert_eq!(error, format!("{name}={value:?}: {allowed}"));
        assert_eq!(error.lines().count(), 1);
    }
}

/// What the EKS add-on sets in a cluster on IPv6.
const IPV6: [(&str, &str); 3] =
    [("ENABLE_IPv6", "true"), ("ENABLE_IPv4", "false"), ("ENABLE_PREFIX_DELEGATION", "true")];

#[test]
fn families_that_contradict_are_refused() {
    let kind = |variables: &[(&str, &str)]| read(variables).map(|settings| settings.kind);
    assert_eq!(kind(&IPV6), Ok(BlockKind::V6Prefix));
    assert_eq!(
        kind(&[IPV6[0], IPV6[2]]),
        Ok(BlockKind::V6Prefix),
        "what is not set contradicts nothing"
    );
    assert_eq!(
        kind(&[("ENABLE_IPv6", "false"), ("ENABLE_IPv4", "true")]),
        Ok(BlockKind::V4Address)
    );
    let check = |variables: &[(&str, &str)], start: &str, end: &str| {
        let error = read(variables).unwrap_err().to_string();
        assert!(error.starts_with(start) && error.ends_with(end), "{error}");
    };
    let neither = "set ENABLE_IPv4=true or ENABLE_IPv6=true";
    check(&[("ENABLE_IPv4", "false")], "ENABLE_IPv4=\"false\": ", neither);
    let prefixes = "set ENABLE_PREFIX_DELEGATION=true too";
    check(&IPV6[..2], "ENABLE_IPv6=\"true\": ", prefixes);
    for name in ["AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "ENABLE_V6_EGRESS", "DISABLE_POD_V6"] {
        let variables = [&IPV6[..], &[(name, "true")]].concat();
        check(&variables, &format!("{name}=\"true\": "), "set one of the two to false");
    }
    let mtu = |bytes| read(&[&IPV6[..], &[("AWS_VPC_ENI_MTU", bytes)]].concat());
    assert!(mtu("1280").is_ok());
    let error = mtu("1279").unwrap_err().to_string();
    assert_eq!(error, "AWS_VPC_ENI_MTU=\"1279\": expected a whole number from 1280 to 9001");
}

#[test]
fn both_families_make_dual_stack() {
    const BOTH: [(&str, &str); 2] = [("ENABLE_IPv6", "true"), ("ENABLE_IPv4", "true")];
    let asked = |variables: &[(&str, &str)]| {
        read(&[&BOTH[..], variables].concat()).map(|settings| (settings.kind, settings.dual))
    };
    assert_eq!(asked(&[]), Ok((BlockKind::V4Address, Some(Needs::Each))));
    assert_eq!(asked(&[IPV6[2]]), Ok((BlockKind::V4Prefix, Some(Needs::Each))));
    for (value, needs) in [("required", Needs::Each), ("preferred", Needs::Any)] {
        let set = [("TIDEPOOL_DUAL_STACK", value)];
        assert_eq!(asked(&set), Ok((BlockKind::V4Address, Some(needs))));
        // With one family the setting is good, and says nothing.
        assert_eq!(read(&set).unwrap().dual, None);
    }
    let error = asked(&[("TIDEPOOL_DUAL_STACK", "maybe")]).unwrap_err().to_string();
    assert_eq!(error, "TIDEPOOL_DUAL_STACK=\"maybe\": expected required or preferred");
    for name in ["AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "ENABLE_V6_EGRESS", "DISABLE_POD_V6"] {
        let error = asked(&[(name, "true")]).unwrap_err().to_string();
        assert!(error.ends_with("set one of the two to false"), "{error}");
    }
    let error = asked(&[("AWS_VPC_ENI_MTU", "1279")]).unwrap_err().to_string();
    assert!(error.ends_with("from 1280 to 9001"), "{error}");
    let settings = read(&BOTH).unwrap();
    let limits = Limits { enis: 3, addresses_per_eni: 10, prefixes: true };
    let policy = super::policy(&settings, limits, Some(2)).unwrap();
    assert_eq!((families_text(policy.families), policy.max_pods), ("secondary-ip+ipv6".into(), 29));
    let none = Limits { prefixes: false, ..limits };
    let error = super::policy(&settings, none, Some(2)).unwrap_err().to_string();
    assert!(error.starts_with("ENABLE_IPv6=\"true\": this instance type takes no"), "{error}");
}

/// The defaults ask for nothing that is missing.
#[test]
fn defaults_are_no_warning() {
    assert_eq!(read(&[]).unwrap().warnings, Vec::<String>::new());
    assert_eq!(read(&IPV6).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn egress_is_to_the_family_that_pods_lack() {
    let check = |variables: &[(&str, &str)], expect: Option<Family>| {
        assert_eq!(read(variables).unwrap().nat.egress.to, expect, "{variables:?}");
    };
    check(&[], None);
    check(&[("ENABLE_V6_EGRESS", "true")], Some(Family::V6));
    check(&[("ENABLE_V4_EGRESS", "true")], None);
    check(&IPV6, Some(Family::V4));
    check(&[&IPV6[..], &[("ENABLE_V4_EGRESS", "false")]].concat(), None);
    // IPv6 needs a larger MTU.
    let small = |egress| read(&[("AWS_VPC_ENI_MTU", "1279"), ("ENABLE_V6_EGRESS", egress)]);
    assert!(small("false").is_ok());
    let error = small("true").unwrap_err().to_string();
    assert_eq!(error, "AWS_VPC_ENI_MTU=\"1279\": expected a whole number from 1280 to 9001");
}

#[test]
fn feature_not_built_is_refused() {
    for name in ["ENABLE_POD_ENI", "ENABLE_MULTI_NIC"] {
        let error = read(&[(name, "true")]).unwrap_err().to_string();
        assert_eq!(error, format!("{name}=\"true\": not supported yet; only false is"));
        assert!(read(&[(name, "false")]).is_ok(), "{name}");
    }
}

#[test]
fn metrics_port_is_the_incumbents_unless_off() {
    let port = |value| read(&[("DISABLE_METRICS", value)]).map(|settings| settings.metrics_port);
    assert_eq!(port("false"), Ok(Some(61678)));
    assert_eq!(port("true"), Ok(None));
    let error = port("off").unwrap_err().to_string();
    assert_eq!(error, "DISABLE_METRICS=\"off\": expected true or false");
}

#[test]
fn prefix_targets_that_are_all_zero_are_refused() {
    let prefix = ("ENABLE_PREFIX_DELEGATION", "true");
    let none = ("WARM_PREFIX_TARGET", "0");
    let error = read(&[prefix, none]).unwrap_err().to_string();
    assert!(error.starts_with("WARM_PREFIX_TARGET=\"0\": with ENABLE_PREFIX_DELEGATION=true one"));
    assert!(read(&[none]).is_ok());
    assert!(read(&[prefix, none, ("MINIMUM_IP_TARGET", "1")]).is_ok());
    assert!(read(&[prefix, none, ("WARM_IP_TARGET", "1")]).is_ok());
}

/// Every environment variable of amazon-vpc-cni-k8s v1.23.1, one a line, from its sources, chart and README.
const INCUMBENT: &str = include_str!("incumbent.txt");

#[test]
fn every_variable_of_the_incumbent_is_known() {
    let names: Vec<&str> = INCUMBENT.lines().collect();
    assert!(names.len() == 64 && names.is_sorted(), "{names:?}");
    for name in names {
        let setting = registry::ALL.iter().find(|setting| setting.name == name);
        let setting = setting.unwrap_or_else(|| panic!("{name} would be dropped without a word"));
        // A value that asks for something is honoured, refused or warned of.
        let value = match setting.default {
            registry::DefaultValue::Value("false") => "true",
            registry::DefaultValue::Value("true") => "false",
            _ => "1280",
        };
        if setting.support != registry::Support::Ignored && name != "ENABLE_IPv4" {
            let before: &[(&str, &str)] = match name {
                "ENABLE_V4_EGRESS" => &IPV6,
                _ => &[],
            };
            assert_ne!(read(&[before, &[(name, value)]].concat()), read(before), "{name}");
        }
    }
}

#[test]
fn setting_without_effect_is_a_warning() {
    let check = |name: &str, value: &str, end: &str| {
        let warnings = read(&[(name, value)]).unwrap().warnings;
        let expect = match end {
            "" => vec![],
            end => vec![format!("{name}: {value:?} has no effect {end}")],
        };
        assert_eq!(warnings, expect);
    };
    check("ENABLE_NFTABLES", "false", "");
    check("ENABLE_NFTABLES", "", "");
    check("POD_SECURITY_GROUP_ENFORCING_MODE", "strict", "");
    check("DISABLE_TCP_EARLY_DEMUX", "true", "since no pod is on a branch ENI yet");
}

#[test]
fn settings_of_an_installation_are_read() {
    let settings = read(&[
        ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "STDERR"),
        ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "Fatal"),
        ("ENABLE_BANDWIDTH_PLUGIN", "false"),
        ("HOST_CNI_BIN_PATH", "/opt/cni/bin"),
        ("HOST_CNI_CONFDIR_PATH", "/etc/cni/net.d"),
    ]);
    let expect = InstallSettings {
        plugins: "/opt/cni/bin".into(),
        conflists: "/etc/cni/net.d".into(),
        plugin_log_file: None,
        plugin_log_level: LogLevel::Error,
        limits_bandwidth: false,
    };
    assert_eq!(settings.unwrap().install, expect);
}

#[test]
fn nat_settings_are_read() {
    let nat = read(&[
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", " 10.1.2.3/8 ,192.168.0.0/16,10.0.0.0/8,"),
        ("AWS_EXTERNAL_SERVICE_CIDRS", "198.51.100.0/24"),
        ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "hashrandom"),
        ("AWS_VPC_CNI_NODE_PORT_SUPPORT", "false"),
        ("AWS_VPC_K8S_CNI_CONNMARK", "64"),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "tp"),
    ]);
    let ranges = |text: &str| text.split(' ').map(|range| range.parse().unwrap()).collect();
    let expect = NatPolicy {
        source: Some(SourceNatPolicy {
            ports: SourcePorts::Hashed,
            excluded: ranges("10.0.0.0/8 192.168.0.0/16"),
        }),
        node_ports: false,
        mark: 0x40.try_into().unwrap(),
        by_main_table: ranges("198.51.100.0/24"),
        pod_links: "tp".to_owned(),
        egress: EgressPolicy { to: None, ports: SourcePorts::Hashed },
    };
    assert_eq!(nat.unwrap().nat, expect);
    let outside = read(&[("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true")]).unwrap().nat;
    assert_eq!(outside, NatPolicy { source: None, ..NatPolicy::default() });
    let hexadecimal = read(&[("AWS_VPC_K8S_CNI_CONNMARK", "0X80")]).unwrap().nat;
    assert_eq!(hexadecimal, NatPolicy::default());
    let many = (0..1001).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256));
    let many = many.collect::<Vec<_>>().join(",");
    assert!(read(&[("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", &many)]).is_err());
}

#[test]
fn misspelt_setting_is_a_warning() {
    let variables = [("ENABLE_IPV6", "true"), ("PATH", "/bin")];
    let warnings = read(&variables).unwrap().warnings;
    assert_eq!(warnings, ["ENABLE_IPV6: no setting has this name; is ENABLE_IPv6 meant?"]);
}

#[test]
fn mtu_of_pods_is_at_most_that_of_enis() {
    let check = |variables: &[(&str, &str)], pod_mtu: u16, warning: &[&str]| {
        let settings = read(variables).unwrap();
        assert_eq!(
            (settings.pod_mtu, &*settings.warnings),
            (pod_mtu, &*warning.iter().map(ToString::to_string).collect::<Vec<_>>())
        );
    };
    check(&[("AWS_VPC_ENI_MTU", "1500")], 1500, &[]);
    check(&[("POD_MTU", "1400")], 1400, &[]);
    let larger = "POD_MTU: 9001 is more than AWS_VPC_ENI_MTU; pods get 1500";
    check(&[("AWS_VPC_ENI_MTU", "1500"), ("POD_MTU", "9001")], 1500, &[larger]);
}

/// A value may hold a password, or be of any length.
#[test]
fn refused_value_is_shown_in_part_and_without_password() {
    let error = read(&[("AWS_EC2_ENDPOINT", "https://me:secret@ec2")]).unwrap_err().to_string();
    let expect = "AWS_EC2_ENDPOINT=\"https://***@ec2\": expected no user and no password in it";
    assert_eq!(error, expect);
    let error = read(&[("WARM_IP_TARGET", &"9".repeat(100_000))]).unwrap_err().to_string();
    assert!(error.len() < 400 && error.contains("9…\": expected a whole"), "{error}");
}
