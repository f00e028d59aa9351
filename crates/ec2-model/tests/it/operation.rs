//! Attachments, instances, networks and tags: what each call does and refuses.

use ec2_model::config::{AddressChoice, Config, Quotas};
use ec2_model::id::{AttachmentId, EniId, InstanceId, ResourceId, ResourceType, SubnetId, VpcId};
use ec2_model::request::{
    AssociateVpcCidrBlock, AttachNetworkInterface, AttachmentChange, CreateNetworkInterface,
    CreateSubnet, CreateTags, CreateVpc, DeleteNetworkInterface, DeleteTags, DescribeInstances,
    DescribeTags, DetachNetworkInterface, InstanceNetworkInterface, InterfaceType,
    ModifyNetworkInterfaceAttribute, RunInstances, Tag, TagSpecification, TerminateInstances,
    WantedIpv6,
};
use ec2_model::response::{
    AttachmentStatus, Instance, InstanceState, InterfaceStatus, Reservation, Response,
};
use ec2_model::seed::{SecurityGroupSeed, SubnetSeed, VpcSeed};

use ipnet::Ipv4Net;

use crate::region::{Region, assign, attach, n_prefixes};

fn tag(key: &str, value: &str) -> Tag {
    Tag { key: key.to_owned(), value: Some(value.to_owned()) }
}

fn delete(eni: &EniId) -> DeleteNetworkInterface {
    DeleteNetworkInterface { network_interface_id: eni.clone(), dry_run: false }
}

#[test]
fn attach_and_detach_change_state() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let eni = region.create_eni();
    assert_eq!(region.eni(&eni).status, InterfaceStatus::Available);
    let attachment_id = region.attach(&eni, &instance, 1).unwrap();
    let listed = region.eni(&eni);
    let attachment = listed.attachment.unwrap();
    assert_eq!(listed.status, InterfaceStatus::InUse);
    assert_eq!((&attachment.id, &attachment.instance_id), (&attachment_id, &instance));
    assert_eq!(attachment.status, AttachmentStatus::Attached);
    assert_eq!((attachment.device_index, attachment.network_card_index), (1, 0));
    assert!(!attachment.delete_on_termination);
    assert_eq!(region.fabric_of(&instance).enis[1].mac, listed.mac_address);
    let address = listed.private_ip_address.unwrap().into();
    assert_eq!(region.model.instance_of(address, region.now), Some(instance.clone()));

    let in_use = format!("Network interface '{eni}' is currently in use.");
    assert_eq!(region.text(delete(&eni)), in_use);
    region.detach(&attachment_id).unwrap();
    assert_eq!(region.eni(&eni).attachment, None);
    assert_eq!(region.fabric_of(&instance).enis.len(), 1);
    assert_eq!(region.model.instance_of(address, region.now), None);
    let again = region.detach(&attachment_id).unwrap_err();
    assert_eq!(again.code, "InvalidAttachmentID.NotFound");
    assert_eq!(region.code(delete(&eni)), "Success");
    let gone = format!("The networkInterface ID '{eni}' does not exist");
    assert_eq!(region.text(delete(&eni)), gone);
    let subnet = region.subnet.clone();
    assert_eq!(region.n_free(&subnet), 250);
}

#[test]
fn invalid_attach_is_refused() {
    let mut region = Region::new();
    let instance = region.add_instance("t3.medium");
    let eni = region.create_eni();
    region.attach(&eni, &instance, 1).unwrap();
    let in_use = format!("Interface: [{eni}] in use.");
    assert_eq!(region.text(attach(&eni, &instance, 2)), in_use);
    let free = region.create_eni();
    let taken =
        format!("Instance '{instance}' already has an interface attached at device index '1'.");
    assert_eq!(region.text(attach(&free, &instance, 1)), taken);
    assert_eq!(region.code(attach(&free, &instance, -1)), "InvalidParameterValue");
    let no_card = AttachNetworkInterface { network_card_index: 1, ..attach(&free, &instance, 1) };
    assert_eq!(region.code(no_card), "InvalidParameterValue");
    let nobody = InstanceId::from_number(1);
    assert_eq!(region.code(attach(&free, &nobody, 1)), "InvalidInstanceID.NotFound");
    let nothing = EniId::from_number(1);
    assert_eq!(region.code(attach(&nothing, &nobody, 1)), "InvalidNetworkInterfaceID.NotFound");
    let far = CreateNetworkInterface::in_subnet(region.other_zone.clone());
    let far = region.create(far).id;
    assert_eq!(region.code(attach(&far, &instance, 2)), "InvalidParameterCombination");
    let heavy = CreateNetworkInterface {
        secondary_private_ip_address_count: Some(6),
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let heavy = region.create(heavy).id;
    let digits = heavy.as_str().trim_start_matches("eni-");
    let too_many = format!("Address count 7 on interface-{digits} exceeds the limit for t3.medium");
    assert_eq!(region.text(attach(&heavy, &instance, 2)), too_many);
    let efa = CreateNetworkInterface {
        interface_type: InterfaceType::Efa,
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let efa = region.create(efa).id;
    assert_eq!(region.code(attach(&efa, &instance, 2)), "UnsupportedOperation");
    // Gaps between device indexes are allowed.
    assert_eq!(region.code(attach(&free, &instance, 5)), "Success");
    let fourth = region.create_eni();
    assert_eq!(
        region.text(attach(&fourth, &instance, 2)),
        "Interface count 4 exceeds the limit for t3.medium"
    );
}

#[test]
fn chosen_primary_avoids_named_addresses() {
    let lowest = Config { address_choice: AddressChoice::LowestFirst, ..Config::default() };
    let mut region = Region::with(lowest);
    let subnet = region.add_subnet("10.0.4.0/26", &["10.0.4.4/30", "10.0.4.8/29"]);
    let prefix: Ipv4Net = "10.0.4.16/28".parse().unwrap();
    let request = CreateNetworkInterface {
        ipv4_prefixes: vec![prefix],
        ..CreateNetworkInterface::in_subnet(subnet)
    };
    let eni = region.create(request);
    assert_eq!(eni.ipv4_prefixes, [prefix]);
    assert_eq!(eni.private_ip_address.unwrap().to_string(), "10.0.4.32");
}

#[test]
fn prefixes_and_ipv6_need_support() {
    let mut region = Region::new();
    let xen = region.add_instance("t2.micro");
    let eni = region.create_eni();
    region.call(assign(&eni, n_prefixes(1))).unwrap();
    assert_eq!(region.text(attach(&eni, &xen, 1)), "IP prefixes are not supported on t2.micro");
    let dual = CreateNetworkInterface {
        ipv6: WantedIpv6 { address_count: Some(1), ..WantedIpv6::default() },
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let dual = region.create(dual).id;
    let old = region.add_instance("m3.medium");
    assert_eq!(region.code(attach(&dual, &old, 1)), "InvalidInterface.IpAddressLimitExceeded");
}

#[test]
fn each_card_takes_published_number_of_enis() {
    for row in instance_types::all() {
        let mut region = Region::new();
        let instance = region.add_instance(row.name);
        for card in &row.cards {
            let attach = |region: &mut Region, device: u16| {
                let eni = region.create_eni();
                let request = AttachNetworkInterface {
                    network_card_index: card.index.into(),
                    ..attach(&eni, &instance, device.into())
                };
                region.code(request)
            };
            let first = u16::from(card.index == 0);
            for device in first..card.max_enis {
                assert_eq!(attach(&mut region, device), "Success", "{} {card:?}", row.name);
            }
            let over = attach(&mut region, card.max_enis);
            assert_eq!(over, "AttachmentLimitExceeded", "{} {card:?}", row.name);
        }
    }
}

#[test]
fn primary_eni_cannot_be_detached() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let eni = region.primary_eni(&instance);
    let attachment = region.eni(&eni).attachment.unwrap();
    assert!(attachment.delete_on_termination);
    let error = region.detach(&attachment.id).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        (
            "OperationNotPermitted",
            "The network interface at device index 0 and networkCard index 0 cannot be detached."
        )
    );
    let unknown = DetachNetworkInterface {
        attachment_id: AttachmentId::from_number(1),
        force: true,
        dry_run: false,
    };
    assert_eq!(region.code(unknown), "InvalidAttachmentID.NotFound");
}

#[test]
fn modify_changes_one_attribute() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let eni = region.create_eni();
    let attachment_id = region.attach(&eni, &instance, 1).unwrap();
    let seed = SecurityGroupSeed {
        id: None,
        vpc: region.vpc.clone(),
        name: "pods".to_owned(),
        description: String::new(),
        tags: Default::default(),
    };
    let group = region.model.add_security_group(seed).unwrap();
    let plain = ModifyNetworkInterfaceAttribute::of(eni.clone());
    let change = |id: &AttachmentId| {
        Some(AttachmentChange { attachment_id: id.clone(), delete_on_termination: true })
    };
    let check = |region: &mut Region, request: ModifyNetworkInterfaceAttribute, expect: &str| {
        assert_eq!(region.code(request.clone()), expect, "{request:?}");
    };
    check(&mut region, plain.clone(), "InvalidParameterCombination");
    let described = Some("mine".to_owned());
    let one = ModifyNetworkInterfaceAttribute { description: described, ..plain.clone() };
    let two = ModifyNetworkInterfaceAttribute { source_dest_check: Some(false), ..one.clone() };
    check(&mut region, two, "InvalidParameterCombination");
    check(&mut region, one, "Success");
    let wrong = change(&AttachmentId::from_number(1));
    let wrong = ModifyNetworkInterfaceAttribute { attachment: wrong, ..plain.clone() };
    check(&mut region, wrong, "InvalidAttachmentID.NotFound");
    let keep = change(&attachment_id);
    let keep = ModifyNetworkInterfaceAttribute { attachment: keep, ..plain.clone() };
    check(&mut region, keep, "Success");
    let groups = vec![group.clone()];
    let grouped = ModifyNetworkInterfaceAttribute { groups, ..plain.clone() };
    check(&mut region, grouped, "Success");
    let unchecked = ModifyNetworkInterfaceAttribute { source_dest_check: Some(false), ..plain };
    check(&mut region, unchecked, "Success");
    let listed = region.eni(&eni);
    assert_eq!(listed.description, "mine");
    assert_eq!(listed.groups[0].id, group);
    assert!(!listed.source_dest_check && listed.attachment.unwrap().delete_on_termination);
}

#[test]
fn eni_groups_are_checked() {
    let config = Config { quotas: Quotas { vpcs: 6, ..Quotas::default() }, ..Config::default() };
    let mut region = Region::with(config);
    let add = |region: &mut Region, vpc: &VpcId, name: &str| {
        let seed = SecurityGroupSeed {
            id: None,
            vpc: vpc.clone(),
            name: name.to_owned(),
            description: String::new(),
            tags: Default::default(),
        };
        region.model.add_security_group(seed)
    };
    let vpc = region.vpc.clone();
    let mine: Vec<_> = (0..6).map(|n| add(&mut region, &vpc, &format!("g{n}")).unwrap()).collect();
    assert_eq!(add(&mut region, &vpc, "g0").unwrap_err().code, "InvalidGroup.Duplicate");
    let seed = VpcSeed { cidrs: vec!["10.9.0.0/16".parse().unwrap()], ..VpcSeed::default() };
    let elsewhere = region.model.add_vpc(seed).unwrap();
    let foreign = add(&mut region, &elsewhere, "foreign").unwrap();
    let create = |groups: &[ec2_model::id::SecurityGroupId], region: &Region| {
        let plain = CreateNetworkInterface::in_subnet(region.subnet.clone());
        CreateNetworkInterface { groups: groups.to_vec(), ..plain }
    };
    let unasked = create(&[], &region);
    assert_eq!(region.create(unasked).groups[0].name, "default");
    let five = create(&mine[..5], &region);
    assert_eq!(region.create(five).groups.len(), 5);
    let six = create(&mine, &region);
    assert_eq!(region.code(six), "SecurityGroupsPerInterfaceLimitExceeded");
    let foreign = create(&[foreign], &region);
    assert_eq!(region.code(foreign), "InvalidGroup.NotFound");
}

fn started(response: Response) -> Reservation {
    match response {
        Response::Started(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

fn instances(region: &mut Region) -> Vec<Instance> {
    match region.call(DescribeInstances::default()).unwrap() {
        Response::Reservations(page) => {
            page.items.into_iter().flat_map(|reservation| reservation.instances).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn run(region: &Region, n: i32) -> RunInstances {
    RunInstances {
        image_id: "ami-0a1b2c3d4e5f60718".to_owned(),
        instance_type: "m5.large".to_owned(),
        min_count: n,
        max_count: n,
        subnet_id: Some(region.subnet.clone()),
        ..RunInstances::default()
    }
}

#[test]
fn instances_start_and_terminate() {
    let mut region = Region::new();
    let subnet = region.subnet.clone();
    let response = region.call(run(&region, 2)).unwrap();
    let reservation = started(response);
    assert_eq!(reservation.instances.len(), 2);
    assert_eq!(reservation.instances[0].state, InstanceState::Pending);
    let listed = instances(&mut region);
    assert!(listed.iter().all(|it| it.state == InstanceState::Running));
    let id = listed[0].id.clone();
    let (kept, dropped) = (region.create_eni(), region.create_eni());
    region.attach(&kept, &id, 1).unwrap();
    let attachment_id = region.attach(&dropped, &id, 2).unwrap();
    region
        .call(ModifyNetworkInterfaceAttribute {
            attachment: Some(AttachmentChange { attachment_id, delete_on_termination: true }),
            ..ModifyNetworkInterfaceAttribute::of(dropped.clone())
        })
        .unwrap();
    assert_eq!(region.n_free(&subnet), 247);

    let terminate = TerminateInstances { instance_ids: vec![id.clone()], dry_run: false };
    let Ok(Response::StateChanges(changes)) = region.call(terminate.clone()) else {
        panic!("it is terminated")
    };
    assert_eq!(changes[0].previous, InstanceState::Running);
    assert_eq!(changes[0].current, InstanceState::ShuttingDown);
    assert_eq!(region.n_free(&subnet), 249, "the other instance and the ENI that was kept");
    assert_eq!(region.eni(&kept).status, InterfaceStatus::Available);
    let gone = instances(&mut region).into_iter().find(|it| it.id == id).unwrap();
    assert_eq!(gone.state, InstanceState::Terminated);
    assert_eq!((gone.private_ip_address, gone.network_interfaces.len()), (None, 0));
    assert_eq!(region.code(attach(&kept, &id, 1)), "IncorrectState");
    assert_eq!(region.code(terminate.clone()), "Success", "again changes nothing");
    region.wait(3_599_999);
    assert_eq!(instances(&mut region).len(), 2);
    region.wait(1);
    assert_eq!(instances(&mut region).len(), 1);
    assert_eq!(region.text(terminate), format!("The instance ID '{id}' does not exist"));
}

#[test]
fn launch_is_all_or_nothing() {
    let mut region = Region::new();
    let small = region.add_subnet("10.0.8.0/28", &["10.0.8.4/30"]);
    let plain = RunInstances { subnet_id: Some(small.clone()), ..run(&region, 8) };
    assert_eq!(region.n_free(&small), 7);
    assert_eq!(region.code(plain.clone()), "InsufficientFreeAddressesInSubnet");
    assert_eq!((region.n_free(&small), instances(&mut region).len()), (7, 0));
    let as_many_as_fit = RunInstances { min_count: 1, ..plain.clone() };
    let response = region.call(as_many_as_fit).unwrap();
    assert_eq!(started(response).instances.len(), 7);
    let check = |region: &mut Region, request: RunInstances, expect: &str| {
        assert_eq!(region.code(request.clone()), expect, "{request:?}");
    };
    let plain = run(&region, 1);
    let nowhere = RunInstances { subnet_id: None, ..plain.clone() };
    check(&mut region, nowhere, "MissingInput");
    let unknown = RunInstances { subnet_id: Some(SubnetId::from_number(1)), ..plain.clone() };
    check(&mut region, unknown, "InvalidSubnetID.NotFound");
    let odd = RunInstances { instance_type: "m5.enormous".to_owned(), ..plain.clone() };
    check(&mut region, odd, "InvalidParameterValue");
    check(
        &mut region,
        RunInstances { min_count: 2, ..plain.clone() },
        "InvalidParameterCombination",
    );
    check(&mut region, RunInstances { min_count: 0, ..plain }, "InvalidParameterValue");
}

#[test]
fn launch_uses_requested_interfaces() {
    let mut region = Region::new();
    let existing = region.create_eni();
    let new = |device_index| InstanceNetworkInterface {
        device_index,
        subnet_id: Some(region.subnet.clone()),
        ipv4_prefix_count: Some(1),
        ..InstanceNetworkInterface::default()
    };
    let old = InstanceNetworkInterface {
        device_index: 1,
        network_interface_id: Some(existing.clone()),
        ..InstanceNetworkInterface::default()
    };
    let plain = RunInstances {
        subnet_id: None,
        network_interfaces: vec![old.clone(), new(0)],
        ..run(&region, 1)
    };
    let bad = RunInstances { network_interfaces: vec![old.clone()], ..plain.clone() };
    let with_subnet = RunInstances { subnet_id: Some(region.subnet.clone()), ..plain.clone() };
    let too_many = (2..4).map(new).chain(plain.network_interfaces.clone()).collect();
    let too_many = RunInstances { network_interfaces: too_many, ..plain.clone() };
    assert_eq!(region.code(bad), "InvalidParameterCombination");
    assert_eq!(region.code(with_subnet), "InvalidParameterCombination");
    assert_eq!(region.code(too_many), "AttachmentLimitExceeded");
    assert_eq!(region.enis().len(), 1, "only what was there before");
    assert_eq!(region.eni(&existing).status, InterfaceStatus::Available);
    let response = region.call(plain).unwrap();
    let instance = started(response).instances.remove(0);
    let [first, second] = &instance.network_interfaces[..] else { panic!("two ENIs") };
    assert_eq!(first.ipv4_prefixes.len(), 1);
    assert!(first.attachment.as_ref().unwrap().delete_on_termination);
    assert_eq!(second.id, existing);
    assert!(!second.attachment.as_ref().unwrap().delete_on_termination);
}

#[test]
fn vpcs_and_subnets_are_created() {
    let mut region = Region::new();
    let vpc = region.vpc.clone();
    let subnet = |cidr: &str| CreateSubnet {
        cidr_block: Some(cidr.parse().unwrap()),
        ..CreateSubnet::in_vpc(vpc.clone())
    };
    let check = |region: &mut Region, request: CreateSubnet, expect: &str| {
        assert_eq!(region.code(request.clone()), expect, "{request:?}");
    };
    check(&mut region, subnet("10.0.2.128/25"), "InvalidSubnet.Conflict");
    check(&mut region, subnet("10.1.0.0/24"), "InvalidSubnet.Range");
    check(&mut region, subnet("10.0.9.0/29"), "InvalidSubnet.Range");
    let ipv6 = |cidr: &str| CreateSubnet {
        ipv6_cidr_block: Some(cidr.parse().unwrap()),
        ..subnet("10.0.10.0/24")
    };
    check(&mut region, ipv6("2600:1f13:abc:de00::/64"), "InvalidSubnet.Conflict");
    check(&mut region, ipv6("2600:1f13:abc:de01::/65"), "InvalidSubnet.Range");
    let zone = |name: &str| CreateSubnet {
        availability_zone: Some(name.to_owned()),
        ..ipv6("2600:1f13:abc:de01::/64")
    };
    assert_eq!(
        region.text(zone("us-east-1z")),
        "Value (us-east-1z) for parameter availabilityZone is invalid. Subnets can currently only \
         be created in the following availability zones: us-east-1a, us-east-1b, us-east-1c."
    );
    let Ok(Response::Subnet(made)) = region.call(zone("us-east-1c")) else { panic!("a subnet") };
    assert_eq!(made.availability_zone_id, "use1-az3");
    assert_eq!(made.available_ip_address_count, 251);
    assert!(made.arn.ends_with(&format!(":subnet/{}", made.id)));
    // Host bits are cleared.
    let Ok(Response::Subnet(made)) = region.call(subnet("10.0.17.18/20")) else { panic!() };
    assert_eq!(made.cidr_block, Some("10.0.16.0/20".parse().unwrap()));

    let create = |cidr: &str| CreateVpc {
        cidr_block: Some(cidr.parse().unwrap()),
        amazon_provided_ipv6_cidr_block: true,
        ..CreateVpc::default()
    };
    assert_eq!(region.code(create("10.0.0.0/8")), "InvalidVpc.Range");
    let Ok(Response::Vpc(made)) = region.call(create("10.0.0.0/16")) else { panic!("a VPC") };
    assert_eq!(made.associations[1].cidr.prefix_len(), 56);
    for _ in 0..3 {
        region.call(create("10.0.0.0/16")).unwrap();
    }
    assert_eq!(region.code(create("10.0.0.0/16")), "VpcLimitExceeded");
}

#[test]
fn vpc_blocks_are_checked() {
    let mut region = Region::new();
    let associate = |cidr: &str, vpc: &VpcId| AssociateVpcCidrBlock {
        cidr_block: Some(cidr.parse().unwrap()),
        ..AssociateVpcCidrBlock::with(vpc.clone())
    };
    let vpc = region.vpc.clone();
    let missing = VpcId::from_number(1);
    for (cidr, vpc, expect) in [
        ("100.64.0.0/16", &missing, "InvalidVpcID.NotFound"),
        ("10.0.128.0/20", &vpc, "CidrConflict"),
        ("100.64.0.0/10", &vpc, "InvalidVpc.Range"),
        ("100.64.0.0/16", &vpc, "Success"),
        ("100.65.0.0/16", &vpc, "Success"),
        ("100.66.0.0/16", &vpc, "Success"),
        ("100.67.0.0/16", &vpc, "Success"),
        ("100.68.0.0/16", &vpc, "CidrLimitExceeded"),
    ] {
        assert_eq!(region.code(associate(cidr, vpc)), expect, "{cidr}");
    }
    let both = AssociateVpcCidrBlock {
        amazon_provided_ipv6_cidr_block: true,
        ..associate("100.69.0.0/16", &vpc)
    };
    assert_eq!(region.code(both.clone()), "InvalidParameterCombination");
    assert_eq!(region.code(AssociateVpcCidrBlock { cidr_block: None, ..both }), "Success");
    let seed = SubnetSeed {
        cidr: Some("100.64.0.0/24".parse().unwrap()),
        used: vec!["100.64.0.1/32".parse().unwrap()],
        ..SubnetSeed::in_zone(vpc, "us-east-1a")
    };
    let reserved = region.model.add_subnet(seed.clone()).unwrap_err();
    assert_eq!(reserved.message, "Address 100.64.0.1 is in subnet's reserved address range");
    let whole = SubnetSeed { used: vec!["100.64.0.0/25".parse().unwrap()], ..seed };
    let whole = region.model.add_subnet(whole).unwrap();
    assert_eq!(region.n_free(&whole), 127);
}

#[test]
fn tags_are_created_and_deleted() {
    let mut region = Region::new();
    let specification = |resource_type| TagSpecification {
        resource_type,
        tags: vec![tag("cluster", "demo"), tag("node", "")],
    };
    let create = |resource_type, region: &Region| CreateNetworkInterface {
        tag_specifications: vec![specification(resource_type)],
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let wrong = create(ResourceType::Subnet, &region);
    assert_eq!(region.code(wrong), "InvalidParameterValue");
    let right = create(ResourceType::NetworkInterface, &region);
    let eni = region.create(right);
    assert_eq!(eni.tags["cluster"], "demo");
    let here = ResourceId::NetworkInterface(eni.id.clone());
    let subnet = ResourceId::Subnet(region.subnet.clone());
    let put = |resources: &[&ResourceId], tags: Vec<Tag>| CreateTags {
        resources: resources.iter().map(|id| (*id).clone()).collect(),
        tags,
        dry_run: false,
    };
    let nowhere = ResourceId::Vpc(VpcId::from_number(1));
    let cases = [
        (put(&[&here, &nowhere], vec![tag("a", "b")]), "InvalidVpcID.NotFound"),
        (put(&[&here], vec![tag("aws:x", "")]), "InvalidParameterValue"),
        (put(&[&here], vec![tag(&"k".repeat(129), "")]), "InvalidParameterValue"),
        (put(&[&here], vec![tag("k", &"v".repeat(257))]), "InvalidParameterValue"),
        (put(&[&here], (0..49).map(|n| tag(&n.to_string(), "")).collect()), "TagLimitExceeded"),
        (put(&[&here], vec![]), "MissingParameter"),
        (put(&[], vec![tag("a", "b")]), "MissingParameter"),
        (put(&vec![&here; 1001], vec![tag("a", "b")]), "InvalidParameterValue"),
    ];
    for (request, expect) in cases {
        assert_eq!(region.code(request), expect);
    }
    assert_eq!(region.eni(&eni.id).tags.len(), 2, "all or nothing");
    region.call(put(&[&here, &subnet], vec![tag("cluster", "other")])).unwrap();
    assert_eq!(region.eni(&eni.id).tags["cluster"], "other");
    let drop = |tags: Vec<Tag>| DeleteTags { resources: vec![here.clone()], tags, dry_run: false };
    region.call(drop(vec![tag("cluster", "demo")])).unwrap();
    assert_eq!(region.eni(&eni.id).tags.len(), 2, "another value");
    region.call(drop(vec![Tag { key: "cluster".to_owned(), value: None }])).unwrap();
    assert_eq!(region.eni(&eni.id).tags.len(), 1);
    let Ok(Response::Tags(page)) = region.call(DescribeTags::default()) else { panic!("tags") };
    let listed: Vec<_> = page.items.iter().map(|it| (&it.resource, it.key.as_str())).collect();
    assert_eq!(listed, [(&here, "node"), (&subnet, "cluster")]);
    region.call(drop(vec![])).unwrap();
    assert!(region.eni(&eni.id).tags.is_empty());
}

#[test]
fn client_token_makes_call_idempotent() {
    let mut region = Region::new();
    let request = CreateNetworkInterface {
        client_token: Some("once".to_owned()),
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let first = region.create(request.clone()).id;
    assert_eq!(region.create(request.clone()).id, first);
    assert_eq!(region.enis().len(), 1);
    let other = CreateNetworkInterface { description: "other".to_owned(), ..request.clone() };
    assert_eq!(region.code(other), "IdempotentParameterMismatch");
    // A refused request may be retried with the same token.
    let refused = CreateNetworkInterface {
        client_token: Some("twice".to_owned()),
        private_ip_address: region.enis()[0].private_ip_address,
        ..request
    };
    assert_eq!(region.code(refused.clone()), "InvalidIPAddress.InUse");
    region.call(delete(&first)).unwrap();
    assert_eq!(region.code(refused), "Success");
}

#[test]
fn dry_run_changes_nothing() {
    let mut region = Region::new();
    let plain = CreateNetworkInterface::in_subnet(region.subnet.clone());
    let error = region.call(CreateNetworkInterface { dry_run: true, ..plain }).unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("DryRunOperation", 412));
    assert!(region.enis().is_empty());
}

#[test]
fn eni_quota_is_enforced() {
    let quotas = Quotas { network_interfaces: 2, ..Quotas::default() };
    let mut region = Region::with(Config { quotas, ..Config::default() });
    let create = CreateNetworkInterface::in_subnet(region.subnet.clone());
    let codes: Vec<String> = (0..3).map(|_| region.code(create.clone())).collect();
    assert_eq!(codes, ["Success", "Success", "NetworkInterfaceLimitExceeded"]);
}
