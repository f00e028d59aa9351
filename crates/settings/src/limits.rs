//! The limits of an instance type without asking EC2: from the built-in table, or assumed.
//!
//! It must not know which of them is preferred.

use instance_types::InstanceType;
use ipam::policy::Limits;

/// The limits of `instance_type` from the built-in table, or `None` for a type newer than the table.
#[must_use]
pub fn known_limits(instance_type: &str) -> Option<Limits> {
    instance_types::lookup(instance_type).map(|row| Limits {
        enis: row.max_enis(),
        addresses_per_eni: row.ipv4_per_eni,
        prefixes: row.supports_prefixes(),
    })
}

/// Limits for a type that neither EC2 nor the table knows: the largest of any type of its size, or of
/// any type if the size is unknown too. Too high a limit shows as a refusal by EC2, from which the
/// engine learns; too low a limit would never show.
#[must_use]
pub fn assumed_limits(instance_type: &str) -> Limits {
    let size = |name: &str| name.split_once('.').map(|(_family, size)| size.to_owned());
    let is_of_size = |row: &&InstanceType| size(row.name) == size(instance_type);
    let least = Limits { enis: 1, addresses_per_eni: 2, prefixes: true };
    let most = |rows: Vec<&InstanceType>| {
        rows.into_iter().fold(least, |most, row| Limits {
            enis: most.enis.max(row.max_enis()),
            addresses_per_eni: most.addresses_per_eni.max(row.ipv4_per_eni),
            // Only Xen types have no prefixes, and AWS makes no new Xen types.
            prefixes: true,
        })
    };
    match instance_types::all().filter(is_of_size).collect::<Vec<_>>() {
        rows if rows.is_empty() => most(instance_types::all().collect()),
        rows => most(rows),
    }
}

/// The default number of vCPUs of `instance_type` from the built-in table, or `None` where the
/// table has no such type or number. The maximum of pods on a node depends on it.
#[must_use]
pub fn known_vcpus(instance_type: &str) -> Option<u32> {
    instance_types::lookup(instance_type).and_then(|row| row.vcpus)
}

/// The names of the built-in table, ascending.
pub fn known_types() -> impl Iterator<Item = &'static str> {
    instance_types::all().map(|row| row.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_from_the_table_or_from_the_size() {
        let m5 = Limits { enis: 3, addresses_per_eni: 10, prefixes: true };
        assert_eq!(known_limits("m5.large"), Some(m5));
        assert_eq!(known_vcpus("m5.large"), Some(2));
        assert!(!known_limits("t2.micro").unwrap().prefixes);
        let large = Limits { enis: 4, addresses_per_eni: 20, prefixes: true };
        let enormous = Limits { enis: 24, addresses_per_eni: 64, prefixes: true };
        let assumed = ["m99.large", "m99.enormous", "m99"].map(assumed_limits);
        assert_eq!(assumed, [large, enormous, enormous]);
        assert_eq!((known_limits("m5.enormous"), known_vcpus("m5.enormous")), (None, None));
    }
}
