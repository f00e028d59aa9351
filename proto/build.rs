//! Generates the gRPC types without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "tidepool/ipam/v1/ipam.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["."])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        .compile_fds(descriptors)?;
    if cfg!(feature = "policy-agent") {
        let file = "policy_agent.proto";
        println!("cargo::rerun-if-changed={file}");
        let descriptors = protox::compile([file], ["."])?;
        tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    }
    Ok(())
}
