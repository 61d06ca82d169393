//! Kernels for NVIDIA GPUs: each `kernels/*.cu` becomes one compressed fatbin, embedded in the library. Where there is no
//! compiler, or none is wanted, the library is built without.

use std::collections::hash_map::DefaultHasher;
use std::env::consts::EXE_SUFFIX;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Narrows the GPUs that are compiled for, such as `90a` or `80,90a`; `none` leaves the kernels out.
const ARCHS_VARIABLE: &str = "WORKER_ORCD_CUDA_ARCHS";

/// What is compiled for where nothing else is asked: Ampere, Ada, Hopper, Blackwell.
const ALL_ARCHS: &str = "80,86,89,90a,100,120";

/// Where it is set, a kernel that spills registers ends the build.
const STRICT_VARIABLE: &str = "WORKER_ORCD_CUDA_STRICT";

/// As the emulator's C++ compiler must: IEEE arithmetic, contracted only where the source says fma.
const FLAGS: &[&str] = &["-fatbin", "-std=c++20", "-O3", "-fmad=false", "-lineinfo", "--compress-mode=size"];

/// Compiles the kernels and writes `kernels.rs`: the compiled modules, the kernels' names, or why there are none.
pub(crate) fn build(sources: &[PathBuf]) {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", ARCHS_VARIABLE, STRICT_VARIABLE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let archs = std::env::var(ARCHS_VARIABLE).unwrap_or_else(|_| ALL_ARCHS.to_owned());
    let written = if archs == "none" {
        generate(&[], Some(&format!("it was built with {ARCHS_VARIABLE}=none")), "")
    } else {
        match Nvcc::find() {
            Ok(nvcc) => generate(&nvcc.compile(sources, &archs), None, &nvcc.version),
            Err(reason) => {
                println!(
                    "cargo:warning=no CUDA kernels in this build: {reason}; scripts/install-nvcc gets a compiler"
                );
                generate(&[], Some(&format!("when it was built, {reason}")), "")
            }
        }
    };
    write(&out_dir().join("kernels.rs"), written.as_bytes());
}

fn out_dir() -> PathBuf {
    PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default())
}

fn package() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
}

/// Ends the build with a message.
fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(1)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| fail(&format!("cannot read {}: {error}", path.display())))
}

/// Writes a file whole or not at all, as builds of several profiles share the cache.
fn write(path: &Path, bytes: &[u8]) {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    written.unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", path.display())));
}

/// A compiler that works.
struct Nvcc {
    path: PathBuf,
    /// Such as `13.0`.
    version: String,
}

impl Nvcc {
    /// Looks for a compiler: NVCC, then CUDA_HOME and CUDA_PATH, PATH, /usr/local/cuda, and the folder that
    /// `scripts/install-nvcc` fills. NVCC alone decides where it is set.
    fn find() -> Result<Self, String> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = match variable("NVCC") {
            Some(path) => path,
            None => {
                let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable);
                let paths = std::env::var_os("PATH").unwrap_or_default();
                homes
                    .map(|home| home.join("bin"))
                    .chain(std::env::split_paths(&paths))
                    .chain([PathBuf::from("/usr/local/cuda/bin"), package().join("target/nvcc/bin")])
                    .map(|folder| folder.join(format!("nvcc{EXE_SUFFIX}")))
                    .find(|path| path.is_file())
                    .ok_or("there was no nvcc")?
            }
        };
        let said = run(Command::new(&path).arg("--version"))
            .map_err(|said| format!("`{}` did not run: {said}", path.display()))?;
        let version = said.split("release ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("");
        let nvcc = Self { version: version.to_owned(), path };
        nvcc.probe()?;
        Ok(nvcc)
    }

    /// Compiles an empty file: nvcc wants a C++ compiler that it knows as its preprocessor.
    fn probe(&self) -> Result<(), String> {
        let empty = out_dir().join("empty.cu");
        write(&empty, b"");
        let result = run(Command::new(&self.path).arg("-E").arg(&empty));
        let failed =
            |said| format!("`{}` found no C++ compiler that it can use: {said}", self.path.display());
        result.map(drop).map_err(failed)
    }

    /// The flags for architectures such as `80,90a`. The first that is not bound to one GPU is embedded as PTX too, for
    /// GPUs to come.
    fn arch_flags(&self, archs: &str) -> Vec<String> {
        let names: Vec<&str> = archs.split(',').map(str::trim).collect();
        if let Some(bad) = names.iter().find(|name| !name.starts_with(|first: char| first.is_ascii_digit())) {
            fail(&format!(
                "{ARCHS_VARIABLE}: `{bad}` is no architecture; give numbers such as {ALL_ARCHS}, or none"
            ));
        }
        let general = names.iter().find(|name| name.ends_with(|last: char| last.is_ascii_digit()));
        let gpu = names.iter().map(|name| format!("-gencode=arch=compute_{name},code=sm_{name}"));
        gpu.chain(general.map(|name| format!("-gencode=arch=compute_{name},code=compute_{name}"))).collect()
    }

    /// Compiles what is not in the cache, several files at once; answers the fatbins in the order of the sources.
    fn compile(&self, sources: &[PathBuf], archs: &str) -> Vec<Module> {
        let include = package().join("kernels/include");
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("-I{}", include.display()));
        flags.extend(self.arch_flags(archs));
        if std::env::var_os(STRICT_VARIABLE).is_some() {
            flags.push("-Xptxas=-warn-spills,-Werror".to_owned());
        }
        let headers = headers(&include);
        // Beside the folders of the profiles, which share it.
        let cache = out_dir().ancestors().nth(4).unwrap_or(Path::new("")).join("kernels");
        fs::create_dir_all(&cache)
            .unwrap_or_else(|error| fail(&format!("cannot make {}: {error}", cache.display())));
        let modules: Vec<Module> = sources
            .iter()
            .map(|source| Module::new(source, &cache, (&self.version, &flags, &headers)))
            .collect();
        let missing: Vec<&Module> = modules.iter().filter(|module| !module.fatbin.exists()).collect();
        let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize).max(1);
        flags.push(format!("--threads={}", jobs.div_ceil(missing.len().max(1))));
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(missing.len()) {
                scope.spawn(|| {
                    while let Some(module) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.compile_one(module, &flags);
                    }
                });
            }
        });
        modules
    }

    fn compile_one(&self, module: &Module, flags: &[String]) {
        let part = module.fatbin.with_extension(format!("{}.part", std::process::id()));
        match run(Command::new(&self.path).args(flags).arg(&module.source).arg("-o").arg(&part)) {
            Ok(_) => fs::rename(&part, &module.fatbin)
                .unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", module.fatbin.display()))),
            Err(said) => fail(&format!("nvcc could not compile {}:\n{said}", module.source.display())),
        }
    }
}

/// Runs a program; answers what it printed, or what it complained of.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err([text(&output.stderr), text(&output.stdout)]
        .into_iter()
        .find(|said| !said.is_empty())
        .unwrap_or_default())
}

/// Name and text of every header in a folder.
fn headers(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cuh"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// A file of kernels.
struct Module {
    source: PathBuf,
    name: String,
    /// Where it is compiled to; the name holds the hash of all that goes into it.
    fatbin: PathBuf,
    kernels: Vec<String>,
    /// Of the image for sm_90a alone.
    kernels_of_sm90a: Vec<String>,
}

impl Module {
    fn new(source: &Path, cache: &Path, compiled_with: impl Hash) -> Self {
        let text = read(source);
        let mut hasher = DefaultHasher::new();
        let beside = headers(source.parent().unwrap_or(Path::new("")));
        (&text, beside, compiled_with).hash(&mut hasher);
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let fatbin = cache.join(format!("{name}-{:016x}.fatbin", hasher.finish()));
        let text = String::from_utf8_lossy(&text);
        let [kernels, kernels_of_sm90a] =
            [&crate::OF_ALL[..], &crate::OF_SM90A].map(|beginnings| crate::kernels_in(&text, beginnings));
        Self { source: source.to_path_buf(), name, fatbin, kernels, kernels_of_sm90a }
    }
}

/// The Rust that embeds the modules.
fn generate(modules: &[Module], missing: Option<&str>, compiler: &str) -> String {
    let mut rust = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(rust, "/// Each file of `kernels/`, compiled, and its kernels.");
    let _ = writeln!(rust, "pub(super) static MODULES: &[Module] = &[");
    for module in modules {
        let copy = out_dir().join(format!("{}.fatbin", module.name));
        write(&copy, &read(&module.fatbin));
        let _ = writeln!(
            rust,
            "    Module {{ name: {:?}, image: &Aligned(*include_bytes!({copy:?})).0, kernels: &{:?}, kernels_of_sm90a: &{:?} }},",
            module.name, module.kernels, module.kernels_of_sm90a
        );
    }
    let _ = writeln!(rust, "];");
    let _ = writeln!(rust, "/// Why there are none.");
    let _ = writeln!(rust, "pub(super) const MISSING: Option<&str> = {missing:?};");
    let _ = writeln!(rust, "/// The release of CUDA whose compiler made them.");
    let _ = writeln!(rust, "pub(super) const COMPILER: &str = {compiler:?};");
    rust
}
