//! A refusal as the details of a gRPC status, for calls whose reply has no place for one.

use prost::Message as _;
use tonic::{Code, Status};

use crate::v1::Refused;

/// The status that carries `refused`. A plugin that does not know of this reads the message alone.
pub fn status(refused: &Refused) -> Status {
    let message = format!("{}: {}", refused.code, refused.message);
    Status::with_details(Code::FailedPrecondition, message, refused.encode_to_vec().into())
}

/// The refusal that `status` carries, if it carries one.
pub fn of_status(status: &Status) -> Option<Refused> {
    if status.code() != Code::FailedPrecondition || status.details().is_empty() {
        return None;
    }
    Refused::decode(status.details()).ok().filter(|refused| !refused.code.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_survives_the_status() {
        let refused = Refused { code: "A".into(), message: "b".into(), retry_after_ms: 1 };
        assert_eq!(of_status(&status(&refused)), Some(refused));
        assert_eq!(of_status(&Status::failed_precondition("plain")), None);
        let garbled = Status::with_details(Code::FailedPrecondition, "", vec![0xff; 3].into());
        assert_eq!(of_status(&garbled), None);
    }
}
