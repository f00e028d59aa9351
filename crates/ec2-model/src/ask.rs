//! What a client asks of a subnet for an ENI, and getting it: all of it or nothing.

use crate::book::{Book, Holder, Refusal};
use crate::config::AddressChoice;
use crate::dice::Dice;
use crate::error::ApiError;
use crate::family::Family;
use crate::id::EniId;
use crate::request::Wanted;

/// What an ENI has of one family, in the order of assignment. For IPv4 the primary address is
/// apart.
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
    /// Slots of an ENI that they take; a prefix takes one.
    pub(crate) fn n_slots(&self) -> usize {
        self.addresses.len() + self.prefixes.len()
    }

    pub(crate) fn extend(&mut self, more: &Self) {
        self.addresses.extend(&more.addresses);
        self.prefixes.extend(&more.prefixes);
    }

    /// Whether all of `part` is in here.
    pub(crate) fn contains(&self, part: &Self) -> bool {
        part.addresses.iter().all(|addr| self.addresses.contains(addr))
            && part.prefixes.iter().all(|prefix| self.prefixes.contains(prefix))
    }

    pub(crate) fn remove(&mut self, part: &Self) {
        self.addresses.retain(|addr| !part.addresses.contains(addr));
        self.prefixes.retain(|prefix| !part.prefixes.contains(prefix));
    }

    /// Gives everything back to the subnet.
    pub(crate) fn release(&self, book: &mut Book<F>) {
        for addr in &self.addresses {
            book.release_address(*addr);
        }
        for prefix in &self.prefixes {
            book.release_prefix(*prefix);
        }
    }
}

/// One kind of thing asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask<F: Family> {
    Addresses(Vec<F::Addr>),
    AddressCount(usize),
    Prefixes(Vec<F::Net>),
    PrefixCount(usize),
}

impl<F: Family> Ask<F> {
    /// Nothing.
    pub(crate) const NONE: Self = Self::AddressCount(0);

    /// What a client wants: `None` if it names nothing at all.
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
        let mut asks = [addresses, n_addresses, prefixes, n_prefixes].into_iter().flatten();
        match (asks.next(), asks.next()) {
            (ask, None) => Ok(ask),
            (_, Some(_)) => Err(several_kinds::<F>()),
        }
    }

    /// Slots of an ENI that it takes.
    pub(crate) fn n_slots(&self) -> usize {
        match self {
            Self::Addresses(addresses) => addresses.len(),
            Self::Prefixes(prefixes) => prefixes.len(),
            Self::AddressCount(n) | Self::PrefixCount(n) => *n,
        }
    }

    /// Whether it says which ones rather than how many.
    pub(crate) fn is_named(&self) -> bool {
        match self {
            Self::Addresses(_) | Self::Prefixes(_) => true,
            Self::AddressCount(_) | Self::PrefixCount(_) => false,
        }
    }

    /// Whether it is for prefixes, of which some instance types have none.
    pub(crate) fn is_for_prefixes(&self) -> bool {
        match self {
            Self::Prefixes(_) | Self::PrefixCount(_) => true,
            Self::Addresses(_) | Self::AddressCount(_) => false,
        }
    }

    /// Free addresses that it needs in the subnet.
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

/// Why a subnet does not give what is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AskError<F: Family> {
    /// This address cannot be had.
    Address(F::Addr, Refusal),
    /// This prefix cannot be had.
    Prefix(F::Net, Refusal),
    /// There are fewer free addresses than asked for.
    TooFewAddresses,
    /// There are enough, but not in whole blocks.
    TooFewBlocks,
}

/// Where automatic addresses come from.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    pub(crate) choice: AddressChoice,
    pub(crate) dice: &'a mut Dice,
}

impl Chooser<'_> {
    /// Takes from the book what is asked, all of it or nothing.
    pub(crate) fn allocate<F: Family>(
        &mut self,
        book: &mut Book<F>,
        ask: &Ask<F>,
        eni: &EniId,
    ) -> Result<Holdings<F>, AskError<F>> {
        let mut taken = Holdings::default();
        let result = self.take(book, ask, eni, &mut taken);
        if result.is_err() {
            taken.release(book);
        }
        match result {
            Ok(()) => Ok(taken),
            // Only now, with nothing taken, do the free addresses say which of the two it is.
            Err(AskError::TooFewBlocks) if book.n_free() < ask.n_addresses() => {
                Err(AskError::TooFewAddresses)
            }
            Err(error) => Err(error),
        }
    }

    fn take<F: Family>(
        &mut self,
        book: &mut Book<F>,
        ask: &Ask<F>,
        eni: &EniId,
        taken: &mut Holdings<F>,
    ) -> Result<(), AskError<F>> {
        let holder = Holder::Eni(eni.clone());
        match ask {
            Ask::Addresses(addresses) => addresses.iter().try_for_each(|addr| {
                let result = book.take_address(*addr, holder.clone());
                result.map_err(|refusal| AskError::Address(*addr, refusal))?;
                taken.addresses.push(*addr);
                Ok(())
            }),
            Ask::Prefixes(prefixes) => prefixes.iter().try_for_each(|prefix| {
                let result = book.take_prefix(*prefix, holder.clone());
                result.map_err(|refusal| AskError::Prefix(*prefix, refusal))?;
                taken.prefixes.push(*prefix);
                Ok(())
            }),
            Ask::AddressCount(n) => (0..*n).try_for_each(|_| {
                let addr = book.choose_address(self.choice, holder.clone(), self.dice);
                taken.addresses.push(addr.ok_or(AskError::TooFewAddresses)?);
                Ok(())
            }),
            Ask::PrefixCount(n) => (0..*n).try_for_each(|_| {
                let prefix = book.choose_prefix(self.choice, holder.clone(), self.dice);
                taken.prefixes.push(prefix.ok_or(AskError::TooFewBlocks)?);
                Ok(())
            }),
        }
    }
}
