//! Pages of a listing.
//!
//! A page token names the last item that was shown. So an item that is created or deleted between
//! two pages neither repeats nor hides others.

use std::ops::RangeInclusive;

use crate::error::ApiError;
use crate::filter::Filter;

/// Parameters of every Describe operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// `Filter.N`
    pub filters: Vec<Filter>,
    /// `MaxResults`
    pub max_results: Option<i32>,
    /// `NextToken`, from the previous page.
    pub next_token: Option<String>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items of this page. A page may be empty although more pages follow.
    pub items: Vec<T>,
    /// Opaque; `None` on the last page.
    pub next_token: Option<String>,
}

/// How one operation pages.
#[derive(Debug)]
pub struct Paging<T> {
    /// The name of the operation. Its page tokens are no tokens of another operation.
    pub action: &'static str,
    /// The range of `MaxResults`.
    pub allowed: RangeInclusive<i32>,
    /// The name of the id parameter, if the request has ids. Then there are no pages.
    pub ids: Option<&'static str>,
    /// The sort key.
    pub key: fn(&T) -> String,
    /// How much of `MaxResults` an item uses.
    pub weight: fn(&T) -> usize,
}

impl<T> Paging<T> {
    /// The page of `items` that `listing` requests. Sorts the items first.
    ///
    /// # Errors
    /// If `MaxResults` is out of range or combined with ids, or if the token belongs to another
    /// operation.
    pub fn cut(&self, mut items: Vec<T>, listing: &Listing) -> Result<Page<T>, ApiError> {
        let max = listing.max_results.map(|max| self.check(max)).transpose()?;
        items.sort_by_cached_key(self.key);
        if let Some(token) = &listing.next_token {
            let after = self.decode(token)?;
            items.retain(|item| (self.key)(item) > after);
        }
        let n = max.map_or(items.len(), |max| self.n_that_fit(&items, max));
        let more = n < items.len();
        items.truncate(n);
        let next_token = items.last().filter(|_| more).map(|item| self.encode(item));
        Ok(Page { items, next_token })
    }

    fn check(&self, max: i32) -> Result<usize, ApiError> {
        if let Some(ids) = self.ids {
            let text = format!("The parameter {ids} cannot be used with the parameter maxResults");
            return Err(ApiError::parameter_combination(text));
        }
        let (least, most) = (self.allowed.start(), self.allowed.end());
        let why = match max {
            max if max < *least => format!("Expecting a value greater than {least}."),
            max if max > *most => format!("Expecting a value less than {most}."),
            max => return Ok(usize::try_from(max).expect("the least that is allowed is positive")),
        };
        Err(ApiError::invalid_value(&format!(" {max} "), "maxResults", &why))
    }

    /// How many items make a page: at least one, and no more than their weights allow.
    fn n_that_fit(&self, items: &[T], max: usize) -> usize {
        let mut total = 0;
        let fits = |item: &&T| {
            total += (self.weight)(item);
            total <= max
        };
        items.iter().take_while(fits).count().max(1).min(items.len())
    }

    fn encode(&self, item: &T) -> String {
        let text = format!("{}/{}", self.action, (self.key)(item));
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(&self, token: &str) -> Result<String, ApiError> {
        let bytes: Option<Vec<u8>> = token
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let prefix = format!("{}/", self.action);
        text.and_then(|text| Some(text.strip_prefix(&prefix)?.to_owned())).ok_or_else(|| {
            ApiError::new("InvalidNextToken", format!("The token '{token}' is invalid"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(ids: Option<&'static str>) -> Paging<u32> {
        Paging {
            action: "DescribeVpcs",
            allowed: 5..=1000,
            ids,
            key: |item| format!("{item:02}"),
            weight: |item| if *item == 50 { 7 } else { 1 },
        }
    }

    fn listing(max_results: Option<i32>, next_token: Option<String>) -> Listing {
        Listing { filters: Vec::new(), max_results, next_token }
    }

    #[test]
    fn pages_cover_every_item_once() {
        let items: Vec<u32> = (10..60).rev().collect();
        let (mut seen, mut token, mut n_pages) = (Vec::new(), None, 0);
        loop {
            let page = paging(None).cut(items.clone(), &listing(Some(5), token)).unwrap();
            seen.extend(page.items);
            n_pages += 1;
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, (10..60).collect::<Vec<_>>());
        // 8 pages of 5, the heavy item alone, 2 pages for the 9 items after it.
        assert_eq!(n_pages, 11);
    }

    #[test]
    fn removal_between_pages_hides_no_item() {
        let first = paging(None).cut((10..20).collect(), &listing(Some(5), None)).unwrap();
        let rest =
            paging(None).cut((15..20).collect(), &listing(Some(5), first.next_token)).unwrap();
        assert_eq!((rest.items, rest.next_token), ((15..20).collect(), None));
    }

    #[test]
    fn invalid_paging_is_refused() {
        let check = |ids, max, token: Option<&str>, expect: Result<(), &str>| {
            let listing = listing(max, token.map(str::to_owned));
            let got = paging(ids).cut(vec![1], &listing).map(|_| ()).map_err(|error| error.code);
            assert_eq!(got, expect.map_err(str::to_owned));
        };
        check(None, Some(5), None, Ok(()));
        check(None, Some(4), None, Err("InvalidParameterValue"));
        check(None, Some(1001), None, Err("InvalidParameterValue"));
        check(Some("vpcIds"), Some(5), None, Err("InvalidParameterCombination"));
        check(Some("vpcIds"), None, None, Ok(()));
        check(None, None, Some("rubbish"), Err("InvalidNextToken"));
        check(None, None, Some("é"), Err("InvalidNextToken"));
    }
}
