//! What a pool demands of its allocations, and whether one obeys.

use ec2_api::ApiError;
use ec2_api::tag::Tags;

use crate::block::Family;
use crate::id::Region;

/// The netmask lengths and tags that a pool demands.
///
/// Invariant: minimum ≤ default ≤ maximum, as far as they are set, and all suit the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    lengths: Lengths<u8>,
    tags: Tags,
}

/// Netmask lengths as a request names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lengths<T> {
    /// `AllocationMinNetmaskLength`: the shortest, so the largest range.
    pub min: Option<T>,
    /// `AllocationMaxNetmaskLength`: the longest, so the smallest range.
    pub max: Option<T>,
    /// `AllocationDefaultNetmaskLength`: for requests that name neither CIDR nor length.
    pub default: Option<T>,
}

/// One way to break the rules of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// The netmask length is out of bounds.
    Length,
    /// A tag is missing, or has another value.
    Tags,
    /// The resource is in another Region than the pool's locale.
    Locale,
}

impl Rules {
    /// Checks lengths against each other and the family.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a length that the family lacks, and
    /// `InvalidParameterCombination` for lengths that contradict each other.
    pub fn new(family: Family, lengths: Lengths<i32>, tags: Tags) -> Result<Self, ApiError> {
        let read = |value: Option<i32>, name| value.map(|it| netmask(it, family, name)).transpose();
        let lengths = Lengths {
            min: read(lengths.min, "allocationMinNetmaskLength")?,
            max: read(lengths.max, "allocationMaxNetmaskLength")?,
            default: read(lengths.default, "allocationDefaultNetmaskLength")?,
        };
        let Lengths { min, max, default } = lengths;
        let ordered =
            |low: Option<u8>, high: Option<u8>| low.zip(high).is_none_or(|(low, high)| low <= high);
        if !ordered(min, max) {
            let text = "The allocation minimum netmask length cannot exceed the maximum.";
            return Err(ApiError::parameter_combination(text));
        }
        if !ordered(min, default) || !ordered(default, max) {
            let text = "The allocation default netmask length must be between minimum and maximum.";
            return Err(ApiError::parameter_combination(text));
        }
        Ok(Self { lengths, tags })
    }

    /// The lengths.
    #[must_use]
    pub const fn lengths(&self) -> Lengths<u8> {
        self.lengths
    }

    /// The tags that resources must have.
    #[must_use]
    pub const fn tags(&self) -> &Tags {
        &self.tags
    }

    /// Whether an allocation may have this length.
    #[must_use]
    pub fn allow_length(&self, len: u8) -> bool {
        self.lengths.min.is_none_or(|min| min <= len)
            && self.lengths.max.is_none_or(|max| len <= max)
    }

    /// Whether a resource has all tags that the pool demands.
    #[must_use]
    pub fn allow_tags(&self, tags: &Tags) -> bool {
        self.tags.iter().all(|(key, value)| tags.get(key) == Some(value))
    }

    /// The ways in which a resource breaks the rules of a pool with this locale.
    #[must_use]
    pub fn violations(
        &self,
        locale: Option<&Region>,
        len: u8,
        tags: &Tags,
        region: &Region,
    ) -> Vec<Violation> {
        let mut found = Vec::new();
        if !self.allow_length(len) {
            found.push(Violation::Length);
        }
        if !self.allow_tags(tags) {
            found.push(Violation::Tags);
        }
        if locale.is_some_and(|locale| locale != region) {
            found.push(Violation::Locale);
        }
        found
    }
}

/// A netmask length of this family.
///
/// # Errors
/// `InvalidParameterValue`.
pub(crate) fn netmask(value: i32, family: Family, parameter: &str) -> Result<u8, ApiError> {
    u8::try_from(value).ok().filter(|len| *len <= family.bits()).ok_or_else(|| {
        let why = format!("It must be from 0 to {}.", family.bits());
        ApiError::invalid_value(&value.to_string(), parameter, &why)
    })
}
