//! Compiles OpenTelemetry's .proto files, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=opentelemetry");
    // Of the collector's service only the messages are used: over HTTP it is a path.
    let set = protox::compile(["opentelemetry/proto/collector/trace/v1/trace_service.proto"], ["."])?;
    prost_build::Config::new().include_file("packages.rs").compile_fds(set)?;
    Ok(())
}
