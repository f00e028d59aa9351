//! Every metric of the daemon, in one place: name, kind, labels, meaning. The page uses these declarations,
//! and a test compares the table in `docs/metrics.md` with them. This module knows no values.
//!
//! Metrics that amazon-vpc-cni-k8s v1.23.1 also has use its names, kinds and labels, since dashboards and
//! alerts depend on them. Source: its `utils/prometheusmetrics/prometheusmetrics.go`.

use prometheus::Opts;

/// The declaration of a metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Alphabetical, as Prometheus sorts them. Samples list the values in this order.
    pub(super) labels: &'static [&'static str],
    /// Without markup and without a full stop at the end.
    pub(super) help: &'static str,
}

/// The type of a metric. Source: prometheus.io, "Metric types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
    Summary,
}

impl Metric {
    /// The options for the library's constructors of this `kind`.
    ///
    /// # Panics
    ///
    /// If the metric is declared as another kind.
    pub(super) fn opts(&self, kind: Kind) -> Opts {
        assert_eq!(self.kind, kind, "{}", self.name);
        Opts::new(self.name, self.help)
    }
}

macro_rules! metrics {
    ($($metric:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $metric: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All of them, in the order of `docs/metrics.md`.
        #[cfg(test)]
        pub(super) const ALL: &[Metric] = &[$($metric),*];
    };
}

metrics! {
    // The current state of the pool.
    ENI_MAX: Gauge "awscni_eni_max" []
        "ENIs for pods that the instance can have: its limit or MAX_ENI, less the ENIs that are not ours";
    IP_MAX: Gauge "awscni_ip_max" []
        "Addresses for pods that these ENIs can carry";
    ENI_ALLOCATED: Gauge "awscni_eni_allocated" []
        "ENIs for pods that exist";
    TOTAL_ADDRESSES: Gauge "awscni_total_ip_addresses" []
        "Addresses for pods that EC2 has assigned";
    ASSIGNED_ADDRESSES: Gauge "awscni_assigned_ip_addresses" []
        "Addresses that pods have";
    TOTAL_PREFIXES: Gauge "awscni_total_ipv4_prefixes" []
        "IPv4 prefixes (/28) that EC2 has assigned";
    DELEGATED_PREFIXES: Gauge "tidepool_delegated_prefixes" []
        "Prefixes that containers beside the pods use; they count in no other metric of addresses or prefixes";
    ASSIGNED_PER_ENI: Gauge "awscni_assigned_ip_per_eni" ["eni"]
        "Addresses of the ENI that pods have";
    ASSIGNED_PER_CIDR: Gauge "awscni_assigned_ip_per_cidr" ["cidr"]
        "Addresses of the prefix that pods have; single addresses have no series";
    ADDRESSES: Gauge "tidepool_addresses" ["state"]
        "Addresses for pods by state: assigned, cooling, quarantined, free; together awscni_total_ip_addresses";
    IPV6_ADDRESSES: Gauge "tidepool_ipv6_addresses" ["state"]
        "With both families, IPv6 addresses by state: assigned, cooling, quarantined; the metrics above count IPv4 then";
    SINGLE_FAMILY_PODS: Gauge "tidepool_single_family_pods" []
        "With both families, pods that have an address of one family only";
    ENIS: Gauge "tidepool_enis" ["state"]
        "ENIs for pods by state: attaching, linking, ready, draining";
    UNUSABLE_ADDRESSES: Gauge "tidepool_unusable_addresses" ["reason"]
        "Free addresses that no new pod gets, by reason: attaching, linking, draining (the state of the ENI), excluded (by a tag)";
    NODE_EXHAUSTION: Gauge "tidepool_node_exhaustion_seconds" []
        "Time until pods have all addresses that the node can carry, by their growth within half an hour; no sample unless they grow";
    SUBNET_FREE: Gauge "tidepool_subnet_free_addresses" ["subnet"]
        "Free IPv4 addresses of the subnet in EC2's last answer, without those granted to this node since";
    SUBNET_FREE_PREFIXES: Gauge "tidepool_subnet_free_prefixes" ["subnet"]
        "The most aligned /28 that the subnet can have free: a sixteenth of its free addresses, 0 while it refuses one";
    SUBNET_AGE: Gauge "tidepool_subnet_described_age_seconds" ["subnet"]
        "Age of EC2's last answer about the subnet; the node asks at its start and before it creates an ENI";
    SUBNET_EXHAUSTION: Gauge "tidepool_subnet_exhaustion_seconds" ["subnet"]
        "Time until the subnet has no free address, by EC2's answers within a day; no sample unless they fall";
    WAITING_ADDS: Gauge "tidepool_waiting_adds" []
        "ADDs that wait for an address";
    EXPECTED_PODS: Gauge "tidepool_expected_pods" []
        "Pods that are bound to the node and have not asked for an address yet; each counts for a minute at most";
    RUNTIME_SANDBOXES: Gauge "tidepool_runtime_sandboxes" []
        "Sandboxes of the container runtime, ready or not; no sample while the runtime does not answer";
    CALLS_IN_FLIGHT: Gauge "tidepool_ec2_calls_in_flight" []
        "Calls that change something at EC2, from the intent to the known outcome";
    OBSTACLES: Gauge "tidepool_obstacles" []
        "Lines under `blocked` in `ipamd status`, which name each obstacle";
    OBSTACLES_BY_CODE: Gauge "tidepool_obstacles_by_code" ["code"]
        "The same lines by their code; lines without one count as OTHER";
    PROVISIONING: Gauge "tidepool_provisioning" ["state"]
        "1 for what may be changed at EC2 now: by_targets, cordoned (as pods want, and no ENI goes back), off (nothing), imds_only (nothing, and EC2 is not asked)";
    READY: Gauge "tidepool_ready" []
        "1 if an ADD would be served; the STATUS verb says why not";
    TASKS: Gauge "tidepool_tasks" []
        "Tasks of the daemon: its loops, its callers, its calls, this scrape; constant over months";
    BUILD_INFO: Gauge "tidepool_build_info" ["version"]
        "Always 1, with the version of the daemon";
    AWS_BUILD_INFO: Gauge "awscni_build_info" ["goversion", "version"]
        "Always 1; goversion is empty";
    IN_PROGRESS: Gauge "awscni_ipamd_action_inprogress" ["fn"]
        "Calls to EC2 under way: increaseDatastorePool, decreaseDatastorePool, nodeIPPoolReconcile (describes and the rest)";
    RESIDENT_BYTES: Gauge "process_resident_memory_bytes" []
        "Memory of the daemon";
    OPEN_FILES: Gauge "process_open_fds" []
        "Open files and sockets of the daemon";
    START_TIME: Gauge "process_start_time_seconds" []
        "When the daemon started, in seconds since 1970";
    RETIRED_LINKS: Gauge "tidepool_retired_links" []
        "Links of pods that have ended, which wait for removal; for seconds only";
    DISAGREEMENTS: Gauge "tidepool_disagreements" ["kind"]
        "Facts on which record, EC2, kernel and metadata service disagree, by kind";
    FOREIGN_ENIS: Gauge "tidepool_foreign_enis" ["reason"]
        "ENIs on the instance that the daemon leaves alone, by reason";
    FOREIGN_BLOCKS: Gauge "tidepool_foreign_blocks" []
        "Addresses and prefixes on our ENIs that no pod gets: of the other family, or assigned by somebody else";
    ENIS_WITH_OTHER_GROUPS: Gauge "tidepool_enis_with_other_security_groups" []
        "ENIs of the daemon that have yet to get the primary ENI's security groups";
    // Events since the start of the daemon.
    ADDS: Counter "awscni_add_ip_req_count" []
        "ADDs that have reached the daemon";
    DELS: Counter "awscni_del_ip_req_count" ["reason"]
        "PodDeleted: DELs; GC: attachments that GC collected";
    ADDS_WITHOUT_ADDRESS: Counter "awscni_no_available_ip_addresses" []
        "ADDs that got no address";
    ADD_REFUSALS: Counter "tidepool_add_refusals_total" ["code"]
        "ADDs that got no address, by code";
    ADD_SECONDS: Histogram "tidepool_add_duration_seconds" ["outcome"]
        "Time from the arrival of an ADD at the daemon to its answer, by outcome: granted, refused, cancelled";
    DEL_SECONDS: Histogram "tidepool_del_duration_seconds" ["outcome"]
        "Time from the arrival of a DEL at the daemon to its answer, by outcome: released, unknown, refused, cancelled";
    PHASE_SECONDS: Histogram "tidepool_request_phase_seconds" ["outcome", "phase", "verb"]
        "Time of a phase of add, del and gc: decision (the wait for an address), record (the disk), kernel (from the answer to an ADD to the plugin's check)";
    PODS_RESTORED: Counter "tidepool_pod_networks_restored_total" []
        "Pods whose links, routes or rules were put back after another program had changed them";
    GROUPS_SET: Counter "tidepool_security_groups_set_total" []
        "ENIs that got the primary ENI's security groups after these had changed, or somebody had changed the ENI's";
    HOST_REPAIRS: Counter "tidepool_host_network_repairs_total" ["part"]
        "Repairs of the node's own network after another program had changed it: kernel_rules, node, default_route, nat, eni, neighbours, host_ports";
    CPU_SECONDS: Counter "process_cpu_seconds_total" []
        "Processor time of the daemon";
    STARTUP_SECONDS: Histogram "awscni_ipamd_startup_duration_seconds" ["failure_reason", "success", "with_api_server"]
        "Time from the start of the process until it serves its socket; a failed start ends the process";
    NODE_INIT_SECONDS: Histogram "awscni_ipamd_node_initialization_duration_seconds" ["success"]
        "Time from the start of the process to EC2's first answer about the ENIs";
    RECONCILED: Counter "awscni_reconcile_count" ["fn"]
        "What describes of the ENIs have shown without a call of this daemon: eniReconcileAdd, eniReconcileDel (ENIs), eniDataStorePoolReconcileAdd, eniIPPoolReconcileDel (addresses and prefixes)";
    USED_ENIS_GONE: Counter "awscni_force_removed_enis" []
        "ENIs that were gone at EC2 while pods had addresses on them";
    USED_ADDRESSES_GONE: Counter "awscni_force_removed_ips" []
        "Addresses that were gone at EC2 while pods had them";
    SETTINGS_REFUSED: Counter "tidepool_settings_refused_total" []
        "Changed settings that were refused, by SIGHUP or from a ConfigMap; those in force stay";
    POLICY_CALLS: Counter "tidepool_policy_agent_calls_total" ["call", "outcome"]
        "Calls to the network policy agent: enforce or delete; ok, refused, silent (no answer in time) or away (nobody listens)";
    SPANS: Counter "tidepool_spans_total" ["outcome"]
        "Spans of traces that have ended: exported, or lost since the collector took too few or none";
    EC2_CALLS: Counter "awscni_ec2api_req_count" ["fn"]
        "Calls to EC2 that have ended, by action, without DescribeInstanceTypes";
    EC2_FAILURES: Counter "awscni_ec2api_error_count" ["fn"]
        "Calls to EC2 that have failed, by action";
    EC2_ERRORS: Counter "awscni_aws_api_error_count" ["api", "error"]
        "Calls to EC2 that have failed, by action and code";
    EC2_LATENCY: Summary "awscni_aws_api_latency_ms" ["api", "error", "status"]
        "Duration of calls to EC2 in milliseconds, without quantiles";
    ERRORS: Counter "awscni_ipamd_error_count" ["fn"]
        "Calls to EC2 that have failed, by function of amazon-vpc-cni-k8s: increaseIPPoolAllocENI, increaseIPPoolAllocIPAddressesFailed, decreaseIPPool, reconcileFailedGetENIs";
    EC2_SECONDS: Histogram "tidepool_ec2_call_duration_seconds" ["action", "outcome"]
        "Duration of calls to EC2 by action and outcome: ok, or the kind of failure";
    EC2_HELD_BACK: Counter "tidepool_ec2_limiter_seconds_total" ["action"]
        "Time for which the node itself has held the action back, after EC2 had throttled it; a pause counts once it has ended";
}
