//! Generates the client of the container runtime's interface.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/cri.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
