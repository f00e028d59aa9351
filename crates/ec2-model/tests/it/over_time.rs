//! Delays, staleness, throttling and faults.

use std::time::Duration;

use ec2_model::config::{Config, Consistency, Latency, Throttling};
use ec2_model::fault::{Disturbance, FaultEffect, FaultRule, When};
use ec2_model::request::{
    Action, AssociateVpcCidrBlock, CreateNetworkInterface, CreateSubnet, DescribeNetworkInterfaces,
    DescribeVpcs, DetachNetworkInterface, RunInstances, TerminateInstances,
};
use ec2_model::response::{AttachmentStatus, InterfaceStatus, Response};
use ec2_model::{ApiError, Delay, Delivery};

use crate::region::{Region, addresses, assign, attach, n_addresses, n_prefixes, prefixes};

fn slow(latency: Latency) -> Region {
    Region::with(Config { latency, ..Config::default() })
}

#[test]
fn eni_states_change_over_time() {
    let mut region = slow(Latency {
        available: Delay::exactly(100),
        attach: Delay::exactly(2_000),
        detach: Delay::exactly(3_000),
        ..Latency::default()
    });
    let instance = region.add_instance("m5.large");
    let eni = region.create_eni();
    assert_eq!(region.eni(&eni).status, InterfaceStatus::Pending);
    assert_eq!(region.model.wake_at(), Some(region.now + Duration::from_millis(100)));
    region.wait(100);
    assert_eq!(region.eni(&eni).status, InterfaceStatus::Available);
    assert_eq!(region.model.wake_at(), None);

    let id = region.attach(&eni, &instance, 1).unwrap();
    let status = |region: &mut Region| {
        let eni = region.eni(&eni);
        let on_instance = region.fabric_of(&instance).enis.len() == 2;
        (eni.status, eni.attachment.map(|it| it.status), on_instance)
    };
    let attaching = (InterfaceStatus::Attaching, Some(AttachmentStatus::Attaching), false);
    assert_eq!(status(&mut region), attaching);
    assert_eq!(region.code(attach(&eni, &instance, 2)), "InvalidNetworkInterface.InUse");
    let other = region.create_eni();
    assert_eq!(region.code(attach(&other, &instance, 1)), "InvalidParameterValue");
    region.wait(1_999);
    assert_eq!(status(&mut region), attaching);
    region.wait(1);
    let attached = (InterfaceStatus::InUse, Some(AttachmentStatus::Attached), true);
    assert_eq!(status(&mut region), attached);

    region.detach(&id).unwrap();
    let detaching = (InterfaceStatus::Detaching, Some(AttachmentStatus::Detaching), false);
    assert_eq!(status(&mut region), detaching);
    region.wait(2_000);
    region.detach(&id).unwrap();
    let force = DetachNetworkInterface { attachment_id: id, force: true, dry_run: false };
    assert_eq!(status(&mut region), detaching, "asking again is no faster");
    region.call(force).unwrap();
    assert_eq!(status(&mut region), (InterfaceStatus::Available, None, false));
}

#[test]
fn detach_may_overtake_attach() {
    let latency = Latency { attach: Delay::exactly(2_000), ..Latency::default() };
    let mut region = slow(latency);
    let instance = region.add_instance("m5.large");
    let eni = region.create_eni();
    let id = region.attach(&eni, &instance, 1).unwrap();
    region.detach(&id).unwrap();
    region.wait(5_000);
    assert_eq!(region.eni(&eni).status, InterfaceStatus::Available);
    assert_eq!(region.fabric_of(&instance).enis.len(), 1);
}

#[test]
fn instances_and_blocks_take_time() {
    let mut region = slow(Latency {
        launch: Delay::exactly(5_000),
        terminate: Delay::exactly(5_000),
        associate: Delay::exactly(1_000),
        ..Latency::default()
    });
    let run = RunInstances {
        instance_type: "m5.large".to_owned(),
        min_count: 1,
        max_count: 1,
        subnet_id: Some(region.subnet.clone()),
        ..Default::default()
    };
    let Ok(Response::Started(reservation)) = region.call(run) else { panic!("it starts") };
    let instance = reservation.instances[0].id.clone();
    let eni = region.create_eni();
    assert_eq!(
        region.text(attach(&eni, &instance, 1)),
        format!("Instance '{instance}' is not 'running'.")
    );
    region.wait(5_000);
    region.attach(&eni, &instance, 1).unwrap();
    let end = TerminateInstances { instance_ids: vec![instance.clone()], dry_run: false };
    region.call(end).unwrap();
    assert_eq!(region.model.fabric(region.now).instances, []);
    assert_eq!(region.enis().len(), 2, "its ENIs are there until it is down");
    region.wait(5_000);
    assert_eq!(region.enis().len(), 1);

    let block = AssociateVpcCidrBlock {
        cidr_block: Some("100.64.0.0/16".parse().unwrap()),
        ..AssociateVpcCidrBlock::with(region.vpc.clone())
    };
    region.call(block).unwrap();
    let subnet = CreateSubnet {
        cidr_block: Some("100.64.0.0/20".parse().unwrap()),
        ..CreateSubnet::in_vpc(region.vpc.clone())
    };
    assert_eq!(region.text(subnet.clone()), "The CIDR '100.64.0.0/20' is invalid.");
    region.wait(1_000);
    assert_eq!(region.code(subnet), "Success");
}

#[test]
fn answers_are_delayed() {
    let mut region = slow(Latency {
        describe: Delay::exactly(70),
        create: Delay::exactly(300),
        ..Latency::default()
    });
    let after = |ms| Delivery::After(Duration::from_millis(ms));
    assert_eq!(region.reply(DescribeVpcs::default()).delivery, after(70));
    let create = CreateNetworkInterface::in_subnet(region.subnet.clone());
    assert_eq!(region.reply(create).delivery, after(300));
    let record = region.model.log().records().last().unwrap();
    assert_eq!(record.answered_at.since(record.at), Duration::from_millis(300));
    let mut region = Region::new();
    assert_eq!(region.reply(DescribeVpcs::default()).delivery, after(0));
}

#[test]
fn new_enis_are_hidden_at_first() {
    let consistency = Consistency {
        hidden_permille: 1000,
        hidden: Delay::exactly(800),
        ..Consistency::default()
    };
    let mut region = Region::with(Config { consistency, ..Config::default() });
    let instance = region.add_instance("m5.large");
    let eni = region.create_eni();
    let not_found = "InvalidNetworkInterfaceID.NotFound";
    let by_id = DescribeNetworkInterfaces {
        network_interface_ids: vec![eni.clone()],
        ..Default::default()
    };
    assert_eq!(region.code(attach(&eni, &instance, 1)), not_found);
    assert_eq!(region.code(by_id.clone()), not_found);
    assert_eq!(region.enis().len(), 1, "that of the instance");
    region.wait(800);
    assert_eq!(region.code(by_id), "Success");
    assert_eq!(region.code(attach(&eni, &instance, 1)), "Success");
}

#[test]
fn describe_may_be_stale() {
    let consistency =
        Consistency { stale_permille: 1000, stale: Delay::exactly(800), ..Consistency::default() };
    let mut region = Region::with(Config { consistency, ..Config::default() });
    let eni = region.create_eni();
    region.call(assign(&eni, addresses(&["10.0.2.42"]))).unwrap();
    assert_eq!(region.eni(&eni).private_ip_addresses.len(), 1);
    region.wait(800);
    assert_eq!(region.eni(&eni).private_ip_addresses.len(), 2);
}

#[test]
fn throttled_calls_have_no_effect() {
    let throttling = Throttling::Documented;
    let mut region = Region::with(Config { throttling, ..Config::default() });
    let create = CreateNetworkInterface::in_subnet(region.subnet.clone());
    let codes: Vec<String> = (0..101).map(|_| region.code(create.clone())).collect();
    assert!(codes[..100].iter().all(|code| code == "Success"));
    assert_eq!(codes[100], "RequestLimitExceeded");
    assert_eq!(region.enis().len(), 100);
    // A malformed call takes a token too. Other accounts have their own buckets.
    let mut context = region.context();
    let bad = || ApiError::missing_parameter("subnetId");
    let refused = region.model.refuse(&context, "CreateNetworkInterface", bad());
    assert_eq!(refused.result.unwrap_err().code, "RequestLimitExceeded");
    context.account = "444455556666".to_owned();
    let refused = region.model.refuse(&context, "CreateNetworkInterface", bad());
    assert_eq!(refused.result.unwrap_err().code, "MissingParameter");
    region.wait(200);
    assert_eq!(region.code(create), "Success");
}

#[test]
fn fault_rules_change_calls() {
    let mut region = Region::new();
    let rule =
        |when, effect| FaultRule { action: Some(Action::CreateNetworkInterface), when, effect };
    let fail = FaultEffect::Fail { code: "InternalError".to_owned(), message: None };
    let id = region.model.add_fault(rule(When::Nth(2), fail));
    let create = CreateNetworkInterface::in_subnet(region.subnet.clone());
    let codes: Vec<String> = (0..3).map(|_| region.code(create.clone())).collect();
    assert_eq!(codes, ["Success", "InternalError", "Success"]);
    assert_eq!(region.enis().len(), 2, "a failed call has no effect");
    assert_eq!(
        region.model.faults().map(|(id, _, hits)| (id, hits)).collect::<Vec<_>>(),
        [(id, 1)]
    );
    assert!(region.model.remove_fault(id));

    region.model.add_fault(rule(When::Next(1), FaultEffect::LoseReply));
    assert_eq!(region.reply(create.clone()).delivery, Delivery::Lost);
    assert_eq!(region.enis().len(), 3, "a lost answer has one");
    region.model.add_fault(rule(When::Each, FaultEffect::Delay { ms: 250 }));
    let delayed = Delivery::After(Duration::from_millis(250));
    assert_eq!(region.reply(create).delivery, delayed);
}

#[test]
fn partial_assign_gives_fewer_than_asked() {
    let mut region = Region::new();
    let eni = region.create_eni();
    let at_most = 2.try_into().unwrap();
    let effect = FaultEffect::PartialAssign { at_most };
    region.model.add_fault(FaultRule { action: None, when: When::Next(3), effect });
    let given = |response| match response {
        Ok(Response::AssignedIpv4 { addresses, prefixes, .. }) => (addresses.len(), prefixes.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(given(region.call(assign(&eni, n_addresses(5)))), (2, 0));
    assert_eq!(given(region.call(assign(&eni, n_prefixes(3)))), (0, 2));
    let named = addresses(&["10.0.2.42", "10.0.2.43", "10.0.2.44"]);
    assert_eq!(given(region.call(assign(&eni, named))), (2, 0));
    let shown = region.eni(&eni);
    assert_eq!((shown.private_ip_addresses.len(), shown.ipv4_prefixes.len()), (5, 2));
    assert_eq!(given(region.call(assign(&eni, n_addresses(3)))), (3, 0), "the rule is spent");
}

#[test]
fn disturbances_change_state_without_call() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let primary = region.primary_eni(&instance);
    let eni = region.create_eni();
    region.attach(&eni, &instance, 1).unwrap();
    region.call(assign(&eni, addresses(&["10.0.2.42"]))).unwrap();
    region.call(assign(&eni, prefixes(&["10.0.2.64/28"]))).unwrap();
    let now = region.now;
    let unassign = |address: &str| Disturbance::Unassign {
        eni: eni.clone(),
        addresses: vec![address.parse().unwrap()],
        prefixes: vec!["10.0.2.64/28".parse().unwrap()],
    };
    let error = region.model.disturb(unassign("10.0.2.43"), now).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
    assert_eq!(region.fabric_of(&instance).enis[1].prefixes.len(), 1);
    region.model.disturb(unassign("10.0.2.42"), now).unwrap();
    let left = region.fabric_of(&instance).enis.remove(1);
    assert_eq!((left.secondaries.len(), left.prefixes.len()), (0, 0));
    let error = region.model.disturb(Disturbance::DetachEni { eni: primary }, now).unwrap_err();
    assert_eq!(error.code, "OperationNotPermitted");
    region.model.disturb(Disturbance::DetachEni { eni: eni.clone() }, now).unwrap();
    assert_eq!(region.eni(&eni).status, InterfaceStatus::Available);
    let detached = region.model.disturb(Disturbance::DetachEni { eni }, now).unwrap_err();
    assert_eq!(detached.code, "IncorrectState");
    assert_eq!(region.model.log().n_of("DetachNetworkInterface"), 0);
}

#[test]
fn calls_are_logged() {
    let mut region = Region::new();
    region.wait(5);
    let mut context = region.context();
    context.parameters.insert("SubnetId".to_owned(), "subnet-foo".to_owned());
    let error = "subnet-foo".parse::<ec2_model::id::SubnetId>().unwrap_err();
    region.model.refuse(&context, "CreateNetworkInterface", error);
    region.model.refuse(&context, "DescribeMoons", ApiError::invalid_action("DescribeMoons"));
    region.call(DescribeVpcs::default()).unwrap();
    let log = region.model.log();
    let calls: Vec<_> =
        log.records().map(|call| (call.action.as_str(), call.error.as_deref())).collect();
    assert_eq!(
        calls,
        [
            ("CreateNetworkInterface", Some("InvalidSubnetID.Malformed")),
            ("DescribeMoons", Some("InvalidAction")),
            ("DescribeVpcs", None),
        ]
    );
    let first = log.records().next().unwrap();
    assert_eq!((first.at, first.parameters["SubnetId"].as_str()), (region.now, "subnet-foo"));
    assert_eq!(log.counts()["DescribeMoons"]["InvalidAction"], 1);
    context.region = "eu-west-1".to_owned();
    let reply = region.model.call(&context, DescribeVpcs::default().into());
    assert_eq!(reply.result.unwrap_err().code, "AuthFailure");
}
