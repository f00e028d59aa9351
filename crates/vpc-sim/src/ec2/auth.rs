//! Reads the caller and the region from the SigV4 authorisation of a request.
//!
//! The signature is not verified: any secret key is accepted. The key id determines the account.

use std::collections::{BTreeMap, BTreeSet};

use address_plan::id::{Account, Region};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use ec2_model::ApiError;

use super::params::Params;
use crate::simulator::Caller;
use crate::world::Place;

/// The credential scope of a request: `AKID/20261121/us-east-1/ec2/aws4_request`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// Access key id.
    pub(super) key_id: String,
    /// Region that the request was signed for.
    pub(super) region: String,
}

/// The accounts of callers, and the Regions they may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The place of requests without authorisation. Its account is that of every key id that is not
    /// in `access_keys`.
    pub home: Place,
    /// The Regions that are served.
    pub regions: BTreeSet<Region>,
    /// Other accounts, by access key id.
    pub access_keys: BTreeMap<String, Account>,
    /// Whether requests without authorisation are accepted, as calls from `home`.
    pub anonymous: bool,
}

impl Access {
    /// The caller of a request with this scope, from an address yet unknown.
    ///
    /// # Errors
    /// `MissingAuthenticationToken` without a scope, unless anonymous requests are accepted.
    /// `AuthFailure` for another region.
    pub(super) fn caller(&self, scope: Option<Scope>) -> Result<Caller, ApiError> {
        let Some(scope) = scope else {
            let caller = Caller { place: self.home.clone(), key_id: None, address: None };
            return self.anonymous.then_some(caller).ok_or_else(unauthenticated);
        };
        let Some(region) = self.regions.iter().find(|it| it.as_str() == scope.region) else {
            let served: Vec<&str> = self.regions.iter().map(Region::as_str).collect();
            let message = format!(
                "Credential should be scoped to a valid region, not '{}'; this is '{}'.",
                scope.region,
                served.join("', '")
            );
            return Err(ApiError::new("AuthFailure", message));
        };
        let account = self.access_keys.get(&scope.key_id).unwrap_or(&self.home.account).clone();
        let place = Place { account, region: region.clone() };
        Ok(Caller { place, key_id: Some(scope.key_id), address: None })
    }
}

fn unauthenticated() -> ApiError {
    let message = "Request is missing Authentication Token";
    ApiError::new("MissingAuthenticationToken", message)
}

/// Parameters that sign a query string (presigned URLs). They are not part of the request.
const SIGNING_PARAMETERS: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Content-Sha256",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

/// The scope in the `Authorization` header or in a presigned query string. Takes the signing
/// parameters out of `params`. `None` if the request has neither.
///
/// # Errors
/// `AuthFailure` or `IncompleteSignature` for authorisation that is not SigV4 for service `ec2`.
pub(super) fn scope(headers: &HeaderMap, params: &mut Params) -> Result<Option<Scope>, ApiError> {
    for name in SIGNING_PARAMETERS {
        params.text(name);
    }
    let presigned = params.text("X-Amz-Credential");
    let Some(header) = headers.get(AUTHORIZATION) else {
        return presigned.map(|credential| parse_credential(&credential)).transpose();
    };
    let header = header.to_str().map_err(|_| incomplete("is not ASCII"))?;
    let fields = header
        .strip_prefix("AWS4-HMAC-SHA256")
        .ok_or_else(|| incomplete("does not start with AWS4-HMAC-SHA256"))?;
    let field = |name: &str| fields.split(',').find_map(|f| f.trim().strip_prefix(name));
    if field("SignedHeaders=").is_none() || field("Signature=").is_none() {
        return Err(incomplete("lacks SignedHeaders or Signature"));
    }
    field("Credential=")
        .ok_or_else(|| incomplete("lacks Credential"))
        .and_then(parse_credential)
        .map(Some)
}

fn parse_credential(credential: &str) -> Result<Scope, ApiError> {
    let parts: Vec<&str> = credential.split('/').collect();
    match parts[..] {
        [key_id, _date, region, "ec2", "aws4_request"] if !key_id.is_empty() => {
            Ok(Scope { key_id: key_id.to_owned(), region: region.to_owned() })
        }
        [_, _, _, service, "aws4_request"] => Err(ApiError::new(
            "AuthFailure",
            format!("Credential should be scoped to correct service: 'ec2', not '{service}'."),
        )),
        _ => Err(incomplete("has a Credential that is not KEY/DATE/REGION/ec2/aws4_request")),
    }
}

fn incomplete(why: &str) -> ApiError {
    ApiError::new("IncompleteSignature", format!("The Authorization header {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: Option<&str>, query: &str, want: Result<Option<&str>, &str>) {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().unwrap());
        }
        let mut params = Params::from_form(query.as_bytes()).unwrap();
        let got = scope(&headers, &mut params);
        let got = got.as_ref().map_err(|refusal| refusal.code.as_str());
        let got = got.map(|scope| scope.as_ref().map(|s| format!("{} {}", s.key_id, s.region)));
        assert_eq!(got, want.map(|scope| scope.map(str::to_owned)), "{header:?} {query}");
        assert!(params.finish().is_ok(), "the signing parameters are consumed");
    }

    #[test]
    fn key_id_determines_account_and_scope_region() {
        let access = Access {
            home: Place {
                account: "111122223333".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            regions: ["us-east-1", "us-west-2"].iter().map(|it| it.parse().unwrap()).collect(),
            access_keys: BTreeMap::from([("OTHER".to_owned(), "444455556666".parse().unwrap())]),
            anonymous: false,
        };
        let check = |access: &Access, scope: Option<(&str, &str)>, want: Result<&str, &str>| {
            let scope = scope
                .map(|(key, region)| Scope { key_id: key.to_owned(), region: region.to_owned() });
            let got = access.caller(scope).map(|caller| caller.place.to_string());
            assert_eq!(got.map_err(|e| e.code), want.map(str::to_owned).map_err(str::to_owned));
        };
        check(&access, Some(("ANY", "us-east-1")), Ok("111122223333 in us-east-1"));
        check(&access, Some(("OTHER", "us-east-1")), Ok("444455556666 in us-east-1"));
        check(&access, Some(("OTHER", "us-west-2")), Ok("444455556666 in us-west-2"));
        check(&access, Some(("ANY", "eu-west-1")), Err("AuthFailure"));
        check(&access, None, Err("MissingAuthenticationToken"));
        check(&Access { anonymous: true, ..access }, None, Ok("111122223333 in us-east-1"));
    }

    #[test]
    fn scope_is_read_from_header_or_query() {
        let header = |credential: &str| {
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00")
        };
        check(None, "", Ok(None));
        let good = header("AKID/20261121/eu-west-1/ec2/aws4_request");
        check(Some(&good), "", Ok(Some("AKID eu-west-1")));
        check(Some(&good.replace(", ", ",")), "", Ok(Some("AKID eu-west-1")));
        let presigned = "X-Amz-Credential=K/1/us-east-1/ec2/aws4_request&X-Amz-Signature=0";
        check(None, presigned, Ok(Some("K us-east-1")));
        check(Some(&header("AKID/1/eu-west-1/s3/aws4_request")), "", Err("AuthFailure"));
        check(Some(&header("AKID")), "", Err("IncompleteSignature"));
        check(Some("Basic dTpw"), "", Err("IncompleteSignature"));
        check(Some("AWS4-HMAC-SHA256 Credential=x"), "", Err("IncompleteSignature"));
    }
}
