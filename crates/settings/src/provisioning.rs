//! What the daemon may change at EC2.

use ipam::policy::Provisioning;

use crate::kubernetes::{self, ApiServer};
use crate::registry::{
    AWS_MANAGE_ENIS_NON_SCHEDULABLE, DISABLE_NETWORK_RESOURCE_PROVISIONING, ENABLE_IMDS_ONLY_MODE,
    MANAGE_UNTAGGED_ENI,
};
use crate::{SettingError, Variables};

/// What may be changed, and what of that cannot be heeded, one sentence each. The first setting that switches something off
/// has the last word.
pub(crate) fn wanted(variables: &Variables) -> Result<(Provisioning, Vec<String>), SettingError> {
    let always = variables.boolean(&AWS_MANAGE_ENIS_NON_SCHEDULABLE)?;
    let is_off = variables.boolean(&DISABLE_NETWORK_RESOURCE_PROVISIONING)?;
    let provisioning = match (variables.boolean(&ENABLE_IMDS_ONLY_MODE)?, is_off, always) {
        (true, _, _) => Provisioning::ImdsOnly,
        (false, true, _) => Provisioning::Off,
        (false, false, true) => Provisioning::Always,
        (false, false, false) => Provisioning::WhileSchedulable,
    };
    let by_metadata = provisioning == Provisioning::ImdsOnly;
    let unmanaged = (by_metadata && !variables.boolean(&MANAGE_UNTAGGED_ENI)?).then(|| {
        format!(
            "{}: the metadata service shows no tags, so with ENABLE_IMDS_ONLY_MODE=true only the primary ENI carries pods",
            MANAGE_UNTAGGED_ENI.name
        )
    });
    let asks_to_heed = provisioning == Provisioning::WhileSchedulable
        && variables.own_text(&AWS_MANAGE_ENIS_NON_SCHEDULABLE).is_some();
    let unseen = match kubernetes::api_server(variables)? {
        ApiServer::Unused(why) if asks_to_heed => Some(format!(
            "{}: only the API server shows that a node is cordoned, and it is not used: {why}",
            AWS_MANAGE_ENIS_NON_SCHEDULABLE.name
        )),
        ApiServer::Unused(_) | ApiServer::Used { .. } => None,
    };
    Ok((provisioning, unmanaged.into_iter().chain(unseen).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn read(text: &str) -> Settings {
        let set = text.split_whitespace().filter_map(|set| set.split_once('='));
        let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Settings::read(&variables).unwrap()
    }

    #[test]
    fn setting_that_switches_most_off_wins() {
        let check = |text: &str, expect| assert_eq!(read(text).provisioning, expect, "{text}");
        let (cordoned, off, imds) = (
            "AWS_MANAGE_ENIS_NON_SCHEDULABLE=true",
            "DISABLE_NETWORK_RESOURCE_PROVISIONING=true",
            "ENABLE_IMDS_ONLY_MODE=true",
        );
        check("", Provisioning::WhileSchedulable);
        check(cordoned, Provisioning::Always);
        check(&format!("{cordoned} {off}"), Provisioning::Off);
        check(imds, Provisioning::ImdsOnly);
        check(&format!("{cordoned} {off} {imds}"), Provisioning::ImdsOnly);
    }

    #[test]
    fn what_cannot_be_heeded_is_a_warning() {
        let check = |text: &str, expect: &[&str]| {
            let warnings = read(text).warnings;
            let names: Vec<_> = warnings.iter().filter_map(|it| it.split(':').next()).collect();
            assert_eq!(names, expect, "{text}: {warnings:?}");
        };
        check("", &[]);
        check("AWS_MANAGE_ENIS_NON_SCHEDULABLE=false", &["AWS_MANAGE_ENIS_NON_SCHEDULABLE"]);
        let seen = "CLUSTER_ENDPOINT=http://a MY_NODE_NAME=n";
        check(&format!("AWS_MANAGE_ENIS_NON_SCHEDULABLE=false {seen}"), &[]);
        check("MANAGE_UNTAGGED_ENI=false", &[]);
        check("MANAGE_UNTAGGED_ENI=false ENABLE_IMDS_ONLY_MODE=true", &["MANAGE_UNTAGGED_ENI"]);
    }
}
