//! Generates the messages of OTLP from OpenTelemetry's own definitions, without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=opentelemetry");
    let file = "opentelemetry/proto/collector/trace/v1/trace_service.proto";
    let mut descriptors = protox::compile([file], ["."])?;
    for file in &mut descriptors.file {
        // Rust would read the indented lines of a comment as a test.
        file.source_code_info = None;
        // This one is for files of spans. Nothing here would use it.
        file.message_type.retain(|message| message.name() != "TracesData");
    }
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(false)
        .build_server(std::env::var_os("CARGO_FEATURE_COLLECTOR").is_some())
        .compile_fds(descriptors)?;
    Ok(())
}
