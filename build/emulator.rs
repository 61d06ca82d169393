//! Kernels for the emulator: every `kernels/*.cu` as C++, and the table of what they hold.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::{OF_ALL, OF_SM90A, kernels_in};

/// Compiles the kernels and the emulator's own sources into one static library.
pub(crate) fn build(sources: &[PathBuf]) {
    println!("cargo:rerun-if-env-changed=WORKER_ORCD_SANITIZE");
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("kernels");
    let own = folder.join("emulator");
    let mut sources = sources.to_vec();
    sources.push(own.join("selftest.cu"));
    let include = folder.join("include");
    let parameters = [include.join("planes.cuh"), include.join("params.cuh")];

    let tables = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("tables.cpp");
    let text = tables_of(&sources, &parameters);
    std::fs::write(&tables, text).unwrap_or_else(|e| panic!("{}: {e}", tables.display()));

    let mut compiler = cc::Build::new();
    compiler.cpp(true).std("c++20").opt_level(2).include(&include).include(&own);
    compiler.define("WORKER_ORCD_EMULATOR", None).debug(false);
    for flag in ["-x", "c++", "-ffp-contract=off", "-fno-math-errno", "-fno-exceptions", "-fno-rtti"] {
        compiler.flag(flag);
    }
    compiler.extra_warnings(true).flag_if_supported("-Wno-unknown-pragmas");
    if let Ok(sanitizers) = std::env::var("WORKER_ORCD_SANITIZE") {
        compiler.debug(true).flag(format!("-fsanitize={sanitizers}"));
        compiler.flag("-fno-sanitize-recover=all").flag("-fno-omit-frame-pointer");
        if sanitizers.split(',').any(|name| name == "address") {
            compiler.define("ADDRESS_SANITIZER", None);
        }
    }
    compiler
        .files(sources)
        .files(["fiber.cpp", "block.cpp", "hopper.cpp", "multiply.cpp"].map(|file| own.join(file)));
    compiler.file(tables).compile("worker_orcd_emulator");
    stand_in_driver(&compiler, &own.join("driver.cpp"));
}

/// Links the emulator into a library that answers as the CUDA driver, for tests: its folder is in the variable
/// `WORKER_ORCD_STAND_IN_DRIVER` when they are compiled, which is empty where there is none.
fn stand_in_driver(compiler: &cc::Build, source: &Path) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let folder = out.join("driver");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !is_linux || std::env::var_os("WORKER_ORCD_SANITIZE").is_some() {
        println!("cargo:rustc-env=WORKER_ORCD_STAND_IN_DRIVER=");
        return;
    }
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut command = compiler.get_compiler().to_command();
    command.args(["-shared", "-pthread"]).arg(source).args(["-x", "none", "-Wl,--whole-archive"]);
    command.arg(out.join("libworker_orcd_emulator.a")).args(["-Wl,--no-whole-archive", "-o"]);
    command.arg(folder.join("libcuda.so"));
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
    println!("cargo:rustc-env=WORKER_ORCD_STAND_IN_DRIVER={}", folder.display());
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// C++ that lists every kernel, and the size and fields of every parameter struct. The list refers to the kernels, so
/// that the linker keeps their objects.
fn tables_of(sources: &[PathBuf], parameters: &[PathBuf]) -> String {
    let all = [&OF_ALL[..], &OF_SM90A].concat();
    let kernels: Vec<String> = sources.iter().flat_map(|path| kernels_in(&read(path), &all)).collect();
    let structs: Vec<(String, Vec<String>)> =
        parameters.iter().flat_map(|path| structs_in(&read(path))).collect();
    let mut text =
        String::from("#include \"params.cuh\"\n#include \"tables.hpp\"\nusing namespace emulator;\n");
    for name in &kernels {
        let _ = writeln!(text, "extern \"C\" const Kernel emulator_kernel_{name};");
    }
    text += "extern \"C\" const Kernel *const emulator_kernels[] = {\n";
    for name in &kernels {
        let _ = writeln!(text, "    &emulator_kernel_{name},");
    }
    text += "};\n";
    for (name, fields) in &structs {
        let _ = writeln!(text, "static const Field fields_of_{name}[] = {{");
        for field in fields {
            let _ = writeln!(text, "    {{\"{field}\", offsetof({name}, {field})}},");
        }
        text += "};\n";
    }
    text += "extern \"C\" const Layout emulator_layouts[] = {\n";
    for (name, fields) in &structs {
        let _ = writeln!(text, "    {{\"{name}\", sizeof({name}), fields_of_{name}, {}}},", fields.len());
    }
    text += "};\n";
    let _ = writeln!(text, "extern \"C\" const size_t emulator_kernel_count = {};", kernels.len());
    let _ = writeln!(text, "extern \"C\" const size_t emulator_layout_count = {};", structs.len());
    text
}

/// Name and fields of every struct without member functions.
fn structs_in(text: &str) -> Vec<(String, Vec<String>)> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let mut structs = Vec::new();
    for part in code.split("\nstruct ").skip(1) {
        let Some((name, body)) = part.split_once('{') else { continue };
        let body = body.split('}').next().unwrap_or_default();
        let declarations = body.split(';').flat_map(|line| line.split(','));
        let fields = declarations.filter_map(|field| {
            let field = field.split('[').next().unwrap_or_default().trim();
            let name = field.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()?;
            (!name.is_empty()).then(|| name.to_owned())
        });
        structs.push((name.trim().to_owned(), fields.collect()));
    }
    structs
}
