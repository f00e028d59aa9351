//! Requests for addresses of a subnet, and their allocation to an ENI: all of a request or nothing.

use crate::address_space::{AddressSpace, Holder, TakeError};
use crate::config::AddressChoice;
use crate::error::ApiError;
use crate::family::Family;
use crate::id::EniId;
use crate::request::Wanted;
use crate::rng::Rng;

/// The addresses and prefixes of an ENI in one family, in the order of assignment. The primary IPv4
/// address is not among them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Holdings<F: Family> {
    pub(crate) addresses: Vec<F::Addr>,
    pub(crate) prefixes: Vec<F::Net>,
}

impl<F: Family> Default for Holdings<F> {
    fn default() -> Self {
        Self { addresses: Vec::new(), prefixes: Vec::new() }
    }
}

impl<F: Family> Holdings<F> {
    /// How many slots of an ENI they take. A prefix takes one.
    pub(crate) fn n_slots(&self) -> usize {
        self.addresses.len() + self.prefixes.len()
    }

    pub(crate) fn extend(&mut self, more: &Self) {
        self.addresses.extend(&more.addresses);
        self.prefixes.extend(&more.prefixes);
    }

    /// Whether all of `part` is included.
    pub(crate) fn contains(&self, part: &Self) -> bool {
        part.addresses.iter().all(|addr| self.addresses.contains(addr))
            && part.prefixes.iter().all(|prefix| self.prefixes.contains(prefix))
    }

    pub(crate) fn remove(&mut self, part: &Self) {
        self.addresses.retain(|addr| !part.addresses.contains(addr));
        self.prefixes.retain(|prefix| !part.prefixes.contains(prefix));
    }

    /// Returns everything to the subnet.
    pub(crate) fn release(&self, space: &mut AddressSpace<F>) {
        for addr in &self.addresses {
            space.release_address(*addr);
        }
        for prefix in &self.prefixes {
            space.release_prefix(*prefix);
        }
    }
}

/// A request for one kind of thing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AddressRequest<F: Family> {
    Addresses(Vec<F::Addr>),
    AddressCount(usize),
    Prefixes(Vec<F::Net>),
    PrefixCount(usize),
}

impl<F: Family> AddressRequest<F> {
    /// The empty request.
    pub(crate) const NONE: Self = Self::AddressCount(0);

    /// The request that `wanted` describes. `None` if it names nothing at all.
    ///
    /// # Errors
    /// If it names several kinds, or a negative number.
    pub(crate) fn from_wanted(wanted: &Wanted<F::Addr, F::Net>) -> Result<Option<Self>, ApiError> {
        let [_, address_count, _, prefix_count] = F::PARAMETERS;
        let addresses =
            (!wanted.addresses.is_empty()).then(|| Self::Addresses(wanted.addresses.clone()));
        let prefixes =
            (!wanted.prefixes.is_empty()).then(|| Self::Prefixes(wanted.prefixes.clone()));
        let n_addresses = count(wanted.address_count, address_count)?.map(Self::AddressCount);
        let n_prefixes = count(wanted.prefix_count, prefix_count)?.map(Self::PrefixCount);
        let mut requests = [addresses, n_addresses, prefixes, n_prefixes].into_iter().flatten();
        match (requests.next(), requests.next()) {
            (request, None) => Ok(request),
            (_, Some(_)) => Err(several_kinds::<F>()),
        }
    }

    /// How many slots of an ENI it takes.
    pub(crate) fn n_slots(&self) -> usize {
        match self {
            Self::Addresses(addresses) => addresses.len(),
            Self::Prefixes(prefixes) => prefixes.len(),
            Self::AddressCount(n) | Self::PrefixCount(n) => *n,
        }
    }

    /// Whether it names addresses or prefixes, rather than a number of them.
    pub(crate) fn is_named(&self) -> bool {
        match self {
            Self::Addresses(_) | Self::Prefixes(_) => true,
            Self::AddressCount(_) | Self::PrefixCount(_) => false,
        }
    }

    /// Whether it is for prefixes. Some instance types do not support them.
    pub(crate) fn is_for_prefixes(&self) -> bool {
        match self {
            Self::Prefixes(_) | Self::PrefixCount(_) => true,
            Self::Addresses(_) | Self::AddressCount(_) => false,
        }
    }

    /// How many free addresses of the subnet it needs.
    fn n_addresses(&self) -> u128 {
        let n = u128::try_from(self.n_slots()).expect("usize is narrower");
        if self.is_for_prefixes() { n << (F::BITS - F::PREFIX_LEN) } else { n }
    }
}

fn count(given: Option<i32>, parameter: &str) -> Result<Option<usize>, ApiError> {
    let check = |n: i32| {
        usize::try_from(n).map_err(|_| {
            ApiError::invalid_value(&n.to_string(), parameter, "Value must be a positive number.")
        })
    };
    given.map(check).transpose()
}

fn several_kinds<F: Family>() -> ApiError {
    let [addresses, address_count, prefixes, prefix_count] = F::PARAMETERS;
    ApiError::parameter_combination(format!(
        "You may specify one and only one of {addresses} or {address_count} or {prefixes} or \
         {prefix_count}, but not more than one of them."
    ))
}

/// Why a subnet cannot serve a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AllocateError<F: Family> {
    /// The named address cannot be taken.
    Address(F::Addr, TakeError),
    /// The named prefix cannot be taken.
    Prefix(F::Net, TakeError),
    /// The subnet has fewer free addresses than requested.
    TooFewAddresses,
    /// The subnet has enough free addresses, but too few whole free blocks.
    TooFewBlocks,
}

/// Takes addresses from a subnet in the configured order.
#[derive(Debug)]
pub(crate) struct Allocator<'a> {
    pub(crate) choice: AddressChoice,
    pub(crate) rng: &'a mut Rng,
}

impl Allocator<'_> {
    /// Takes all that is requested from `space`, or nothing.
    pub(crate) fn allocate<F: Family>(
        &mut self,
        space: &mut AddressSpace<F>,
        request: &AddressRequest<F>,
        eni: &EniId,
    ) -> Result<Holdings<F>, AllocateError<F>> {
        let mut taken = Holdings::default();
        let result = self.take(space, request, eni, &mut taken);
        if result.is_err() {
            taken.release(space);
        }
        match result {
            Ok(()) => Ok(taken),
            // The count of free addresses is right only now, after the partial allocation was
            // released.
            Err(AllocateError::TooFewBlocks) if space.n_free() < request.n_addresses() => {
                Err(AllocateError::TooFewAddresses)
            }
            Err(error) => Err(error),
        }
    }

    fn take<F: Family>(
        &mut self,
        space: &mut AddressSpace<F>,
        request: &AddressRequest<F>,
        eni: &EniId,
        taken: &mut Holdings<F>,
    ) -> Result<(), AllocateError<F>> {
        let holder = Holder::Eni(eni.clone());
        match request {
            AddressRequest::Addresses(addresses) => addresses.iter().try_for_each(|addr| {
                let result = space.take_address(*addr, holder.clone());
                result.map_err(|error| AllocateError::Address(*addr, error))?;
                taken.addresses.push(*addr);
                Ok(())
            }),
            AddressRequest::Prefixes(prefixes) => prefixes.iter().try_for_each(|prefix| {
                let result = space.take_prefix(*prefix, holder.clone());
                result.map_err(|error| AllocateError::Prefix(*prefix, error))?;
                taken.prefixes.push(*prefix);
                Ok(())
            }),
            AddressRequest::AddressCount(n) => (0..*n).try_for_each(|_| {
                let addr = space.choose_address(self.choice, holder.clone(), self.rng);
                taken.addresses.push(addr.ok_or(AllocateError::TooFewAddresses)?);
                Ok(())
            }),
            AddressRequest::PrefixCount(n) => (0..*n).try_for_each(|_| {
                let prefix = space.choose_prefix(self.choice, holder.clone(), self.rng);
                taken.prefixes.push(prefix.ok_or(AllocateError::TooFewBlocks)?);
                Ok(())
            }),
        }
    }
}
