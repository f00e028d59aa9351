//! Options of instances and ENIs that do not concern addresses: metadata, profile, user data,
//! connection tracking, the primary IPv6 address, queues.

use ec2_model::config::Config;
use ec2_model::connection_tracking::ConnectionTracking;
use ec2_model::id::{EniId, InstanceId};
use ec2_model::launch_options::IamInstanceProfile;
use ec2_model::metadata_options::{HttpTokens, MetadataOptions, MetadataOptionsRequest, Toggle};
use ec2_model::request::{
    AttachNetworkInterface, CreateNetworkInterface, InstanceNetworkInterface,
    ModifyNetworkInterfaceAttribute, RunInstances, Tag, TagSpecification, UnassignIpv6Addresses,
    Wanted, WantedIpv6,
};
use ec2_model::response::{Instance, NetworkInterface, Response};

use crate::region::{Region, attach};

fn one_instance(region: &Region) -> RunInstances {
    RunInstances {
        instance_type: "m5.large".to_owned(),
        min_count: 1,
        max_count: 1,
        subnet_id: Some(region.subnet.clone()),
        ..RunInstances::default()
    }
}

fn run(region: &mut Region, request: RunInstances) -> Instance {
    match region.call(request).unwrap() {
        Response::Started(mut reservation) => reservation.instances.remove(0),
        other => panic!("{other:?}"),
    }
}

fn ipv6_count(n: i32) -> WantedIpv6 {
    Wanted { address_count: Some(n), ..Wanted::default() }
}

#[test]
fn instance_has_its_metadata_options() {
    let mut region = Region::new();
    let request = one_instance(&region);
    let plain = run(&mut region, request);
    assert_eq!(plain.metadata_options, MetadataOptions::default());
    assert_eq!(plain.metadata_options.hop_limit.get(), 2);

    let metadata_options = MetadataOptionsRequest {
        http_tokens: Some(HttpTokens::Optional),
        hop_limit: Some(1),
        ..MetadataOptionsRequest::default()
    };
    let request = RunInstances { metadata_options, ..one_instance(&region) };
    let got = run(&mut region, request).metadata_options;
    assert_eq!((got.http_tokens, got.hop_limit.get()), (HttpTokens::Optional, 1));
    assert_eq!(got.http_endpoint, Toggle::Enabled, "what is absent keeps its default");

    let metadata_options = MetadataOptionsRequest { hop_limit: Some(65), ..metadata_options };
    let too_far = RunInstances { metadata_options, ..one_instance(&region) };
    assert_eq!(region.code(too_far), "InvalidParameterValue");
}

#[test]
fn options_of_unknown_instance_are_refused() {
    let mut region = Region::new();
    let nobody = InstanceId::from_number(1);
    assert_eq!(region.model.metadata_options(&nobody), None);
    let refused = region.model.set_metadata_options(&nobody, MetadataOptions::default());
    assert_eq!(refused.unwrap_err().code, "InvalidInstanceID.NotFound");
}

#[test]
fn imds_shows_tags_if_the_instance_allows_it() {
    let mut region = Region::new();
    let tag = Tag { key: "Name".to_owned(), value: Some("node-a".to_owned()) };
    let tag_specifications = vec![TagSpecification {
        resource_type: ec2_model::id::ResourceType::Instance,
        tags: vec![tag],
    }];
    let silent = RunInstances { tag_specifications, ..one_instance(&region) };
    let metadata_options = MetadataOptionsRequest {
        instance_metadata_tags: Some(Toggle::Enabled),
        ..MetadataOptionsRequest::default()
    };
    let open = RunInstances { metadata_options, ..silent.clone() };
    let (silent, open) = (run(&mut region, silent).id, run(&mut region, open).id);
    let name = "/latest/meta-data/tags/instance/Name";
    assert_eq!(region.imds(&silent, name), None);
    assert_eq!(region.imds(&open, name).as_deref(), Some("node-a"));
    let before_tags = "/2021-01-03/meta-data/tags/instance/Name";
    assert_eq!(region.imds(&open, before_tags), None);
}

#[test]
fn imds_serves_credentials_of_the_profile() {
    let config = Config { iam_role: Some("seeded".to_owned()), ..Config::default() };
    let mut region = Region::with(config);
    let roles = "/latest/meta-data/iam/security-credentials/";
    let seeded = region.add_instance("m5.large");
    assert_eq!(region.imds(&seeded, roles).as_deref(), Some("seeded"));

    let request = one_instance(&region);
    let without = run(&mut region, request);
    assert_eq!(without.iam_instance_profile, None);
    assert_eq!(region.imds(&without.id, roles), None);

    let named = IamInstanceProfile { name: Some("node".to_owned()), arn: None };
    let request = RunInstances { iam_instance_profile: Some(named), ..one_instance(&region) };
    let with = run(&mut region, request);
    let arn = with.iam_instance_profile.map(|profile| profile.arn);
    assert_eq!(arn.as_deref(), Some("arn:aws:iam::111122223333:instance-profile/node"));
    assert_eq!(region.imds(&with.id, roles).as_deref(), Some("node"));
}

#[test]
fn imds_serves_user_data_as_it_was_given() {
    let mut region = Region::new();
    let mut with = |data: &str| {
        let user_data = Some(data.to_owned());
        let request = RunInstances { user_data, ..one_instance(&region) };
        run(&mut region, request).id
    };
    let (text, binary) = (with("aGVsbG8="), with("H4sI/w=="));
    let request = one_instance(&region);
    let without = run(&mut region, request).id;
    let path = "/latest/user-data";
    assert_eq!(region.imds(&text, path).as_deref(), Some("hello"));
    assert_eq!(region.imds(&text, "/latest").unwrap(), "dynamic/\nmeta-data/\nuser-data");
    let now = region.now;
    let bytes = region.model.imds_bytes(&binary, path, now).unwrap();
    assert_eq!(bytes, [0x1f, 0x8b, 0x08, 0xff]);
    assert_eq!(region.imds(&without, path), None);
}

#[test]
fn instance_starts_with_ipv6_addresses() {
    let mut region = Region::new();
    let named =
        Wanted { addresses: vec!["2600:1f13:abc:de00::a1".parse().unwrap()], ..Wanted::default() };
    let plain = one_instance(&region);
    let request = RunInstances { ipv6: named.clone(), enable_primary_ipv6: true, ..plain.clone() };
    let instance = run(&mut region, request);
    assert_eq!(instance.ipv6_address, Some(named.addresses[0]));
    assert_eq!(instance.network_interfaces[0].primary_ipv6, instance.ipv6_address);
    let counted = RunInstances { ipv6: ipv6_count(3), ..plain.clone() };
    let instance = run(&mut region, counted);
    assert_eq!(instance.network_interfaces[0].ipv6_addresses.len(), 3);
    assert_eq!(instance.network_interfaces[0].primary_ipv6, None);

    let mut refused = |request: RunInstances| region.code(request);
    let combination = "InvalidParameterCombination";
    assert_eq!(refused(RunInstances { max_count: 2, ipv6: named, ..plain.clone() }), combination);
    assert_eq!(refused(RunInstances { enable_primary_ipv6: true, ..plain.clone() }), combination);
    let network_interfaces = vec![InstanceNetworkInterface {
        subnet_id: plain.subnet_id.clone(),
        ..InstanceNetworkInterface::default()
    }];
    let twice = RunInstances { network_interfaces, subnet_id: None, ipv6: ipv6_count(1), ..plain };
    assert_eq!(refused(twice), combination);
}

#[test]
fn primary_ipv6_address_stays_until_detach() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let plain = CreateNetworkInterface::in_subnet(region.subnet.clone());
    let bare = CreateNetworkInterface { enable_primary_ipv6: true, ..plain.clone() };
    assert_eq!(region.code(bare), "InvalidParameterCombination", "it has no IPv6 address");

    let eni = region.create(CreateNetworkInterface {
        ipv6: ipv6_count(2),
        enable_primary_ipv6: true,
        ..plain
    });
    let primary = eni.ipv6_addresses[0];
    assert_eq!(eni.primary_ipv6, Some(primary));
    let attachment = region.attach(&eni.id, &instance, 1).unwrap();
    let unassign = UnassignIpv6Addresses {
        network_interface_id: eni.id.clone(),
        addresses: vec![primary],
        prefixes: Vec::new(),
    };
    assert_eq!(region.code(unassign.clone()), "InvalidParameterValue");
    let modify = |enable| ModifyNetworkInterfaceAttribute {
        enable_primary_ipv6: Some(enable),
        ..ModifyNetworkInterfaceAttribute::of(eni.id.clone())
    };
    assert_eq!(region.code(modify(false)), "OperationNotPermitted");
    region.detach(&attachment).unwrap();
    assert_eq!(region.eni(&eni.id).primary_ipv6, None);
    region.call(modify(true)).unwrap();
    assert_eq!(region.eni(&eni.id).primary_ipv6, Some(primary));
}

#[test]
fn connection_tracking_is_kept_and_changed() {
    let mut region = Region::new();
    let plain = CreateNetworkInterface::in_subnet(region.subnet.clone());
    assert_eq!(region.create(plain.clone()).connection_tracking, None);
    let tracking = |tcp, udp| {
        Some(ConnectionTracking {
            tcp_established_timeout: tcp,
            udp_timeout: udp,
            ..ConnectionTracking::default()
        })
    };
    let wanted = CreateNetworkInterface { connection_tracking: tracking(Some(350), None), ..plain };
    let eni = region.create(wanted.clone());
    assert_eq!(eni.connection_tracking, tracking(Some(350), None));
    let modify = |connection_tracking| ModifyNetworkInterfaceAttribute {
        connection_tracking,
        ..ModifyNetworkInterfaceAttribute::of(eni.id.clone())
    };
    region.call(modify(tracking(None, Some(45)))).unwrap();
    assert_eq!(region.eni(&eni.id).connection_tracking, tracking(Some(350), Some(45)));
    assert_eq!(region.code(modify(tracking(Some(1), None))), "InvalidParameterValue");
    let wrong = CreateNetworkInterface { connection_tracking: tracking(None, Some(1)), ..wanted };
    assert_eq!(region.code(wrong), "InvalidParameterValue");
}

#[test]
fn attachment_has_its_queues() {
    let mut region = Region::new();
    let (instance, fixed) = (region.add_instance("m6i.4xlarge"), region.add_instance("m5.large"));
    let queues = |region: &mut Region, eni: &EniId, n| {
        let request = AttachNetworkInterface { ena_queue_count: n, ..attach(eni, &instance, 1) };
        region.code(request)
    };
    let eni = region.create_eni();
    for wrong in [-1, 0, 3, 32] {
        assert_eq!(queues(&mut region, &eni, Some(wrong)), "InvalidParameterValue", "{wrong}");
    }
    let unsupported =
        AttachNetworkInterface { ena_queue_count: Some(2), ..attach(&eni, &fixed, 1) };
    assert_eq!(region.code(unsupported), "UnsupportedOperation");
    assert_eq!(queues(&mut region, &eni, Some(16)), "Success");
    let shown = |eni: NetworkInterface| eni.attachment.unwrap().ena_queue_count;
    assert_eq!(shown(region.eni(&eni)), Some(16));
    let primary = region.primary_eni(&instance);
    assert_eq!(shown(region.eni(&primary)), None);
}
