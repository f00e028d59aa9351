//! Tags on the wire.

use ec2_model::ApiError;
use ec2_model::id::ResourceId;
use ec2_model::request::{CreateTags, DeleteTags, DescribeTags};
use ec2_model::response::TagDescription;

use super::{Params, Read, Xml, dry_run, listing, tags};

impl Read for CreateTags {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let request =
            Self { resources: resources(params)?, tags: tags(params)?, dry_run: dry_run(params)? };
        if request.tags.is_empty() {
            return Err(params.missing("Tag"));
        }
        Ok(request)
    }
}

impl Read for DeleteTags {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { resources: resources(params)?, tags: tags(params)?, dry_run: dry_run(params)? })
    }
}

impl Read for DescribeTags {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { listing: listing(params)?, dry_run: dry_run(params)? })
    }
}

fn resources(params: &mut Params) -> Result<Vec<ResourceId>, ApiError> {
    let resources = params.list("ResourceId")?;
    if resources.is_empty() {
        return Err(params.missing("ResourceId"));
    }
    Ok(resources)
}

pub(super) fn tag_description(xml: &mut Xml, tag: &TagDescription) {
    xml.text("key", &tag.key);
    xml.text("resourceId", &tag.resource);
    xml.text("resourceType", tag.resource.resource_type());
    xml.text("value", &tag.value);
}
