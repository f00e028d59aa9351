//! The messages of OTLP, generated from OpenTelemetry's definitions in `opentelemetry/`.

#![cfg_attr(
    not(feature = "collector"),
    expect(unreachable_pub, reason = "generated for whoever imports it")
)]
#![cfg_attr(
    feature = "collector",
    expect(
        missing_docs,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated without comments, and with the code of a server"
    )
)]
#![expect(clippy::all, reason = "nearly all of this module is generated")]

pub mod common {
    pub mod v1 {
        tonic::include_proto!("opentelemetry.proto.common.v1");
    }
}

pub mod resource {
    pub mod v1 {
        tonic::include_proto!("opentelemetry.proto.resource.v1");
    }
}

pub mod trace {
    pub mod v1 {
        tonic::include_proto!("opentelemetry.proto.trace.v1");
    }
}

pub mod collector {
    pub mod trace {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
        }
    }
}
