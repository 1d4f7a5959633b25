//! Compiles `proto/` into `OUT_DIR` with protox, so that no `protoc` is needed.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files =
        ["syncline/v1/sync_service.proto", "syncline/v1/admin_service.proto", "syncline/v1/error.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    // Kept for the reflection service.
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("syncline.v1.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
