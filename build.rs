//! Compiles `kernels/`: for NVIDIA GPUs where there is a CUDA compiler, and for the emulator where its feature is on.
//! Without either the crate builds all the same.

#[path = "build/cuda.rs"]
mod cuda;
#[cfg(feature = "emulator")]
#[path = "build/emulator.rs"]
mod emulator;

use std::path::PathBuf;

/// Every `*.cu` in a folder of the package, in order.
fn sources_in(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(folder);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    files.sort();
    files
}

/// How the kernels of all GPUs begin, and those that an image for sm_90a alone holds.
const OF_ALL: [&str; 2] = ["KERNEL(", "KERNEL_AHEAD("];
const OF_SM90A: [&str; 1] = ["KERNEL_SM90A("];

/// The names in lines that begin in one of these ways, such as `KERNEL(name, `.
fn kernels_in(text: &str, beginnings: &[&str]) -> Vec<String> {
    let rests = text.lines().filter_map(|line| beginnings.iter().find_map(|begin| line.strip_prefix(begin)));
    let names = rests.filter_map(|rest| rest.split_once(','));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=kernels");
    let mut sources = sources_in("kernels");
    if cfg!(feature = "lab") {
        sources.extend(sources_in("kernels/lab"));
    }
    cuda::build(&sources);
    #[cfg(feature = "emulator")]
    emulator::build(&sources);
}
