//! The messages of OTLP, generated from OpenTelemetry's definitions in `opentelemetry/`.

#![expect(
    unreachable_pub,
    clippy::all,
    reason = "nearly all of this module is generated, for whoever imports it"
)]

pub(crate) mod common {
    pub(crate) mod v1 {
        tonic::include_proto!("opentelemetry.proto.common.v1");
    }
}

pub(crate) mod resource {
    pub(crate) mod v1 {
        tonic::include_proto!("opentelemetry.proto.resource.v1");
    }
}

pub(crate) mod trace {
    pub(crate) mod v1 {
        tonic::include_proto!("opentelemetry.proto.trace.v1");
    }
}

pub(crate) mod collector {
    pub(crate) mod trace {
        pub(crate) mod v1 {
            tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
        }
    }
}
