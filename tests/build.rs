//! Generates the client of the container runtime's interface, and the server of a collector of traces.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/cri.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(false)
        .compile_fds(descriptors)?;
    let otlp = "../crates/otlp";
    println!("cargo::rerun-if-changed={otlp}/opentelemetry");
    let file = "opentelemetry/proto/collector/trace/v1/trace_service.proto";
    let mut descriptors = protox::compile([file], [otlp])?;
    for file in &mut descriptors.file {
        // Rust would read the indented lines of a comment as a test.
        file.source_code_info = None;
        file.message_type.retain(|message| message.name() != "TracesData");
    }
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(false)
        .compile_fds(descriptors)?;
    Ok(())
}
