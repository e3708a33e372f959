//! Builds the web app: two WebAssembly programs with their JavaScript glue, the static files, and compressed twins.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use wasm_bindgen_cli_support::Bindgen;

use crate::{Failure, cargo, root, run, say, setup, target};

const WASM: &str = "wasm32-unknown-unknown";
/// The page and the worker.
const PROGRAMS: [&str; 2] = ["app", "node"];

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// Small and quick to run, with compressed twins of every file.
    Release,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "wasm-dev",
            Self::Release => "wasm-release",
        }
    }
}

/// Builds into `target/web`, which a node serves with `--web`. Returns that folder.
///
/// # Errors
///
/// If something does not build.
pub fn build(profile: Profile) -> Result<PathBuf, Failure> {
    setup::rust_target(WASM)?;
    let mut command = cargo(["build", "--package", "qunlong-web", "--bins", "--target", WASM, "--profile"]);
    command.arg(profile.name());
    run(command, "building the web app")?;

    let built = target().join(WASM).join(profile.name());
    let out = target().join("web");
    let stamp = out.join(".stamp");
    let inputs = inputs(&built);
    if is_newer(&stamp, &inputs) && fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == profile.name()) {
        return Ok(out);
    }
    say("writing target/web");
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure(format!("cannot {what}: {error}"));
    if out.exists() {
        fs::remove_dir_all(&out).map_err(|error| failed("clear target/web", &error))?;
    }
    fs::create_dir_all(&out).map_err(|error| failed("make target/web", &error))?;
    for program in PROGRAMS {
        let mut bindgen = Bindgen::new();
        let input = built.join(format!("{program}.wasm"));
        let result = bindgen
            .input_path(input)
            .omit_default_module_path(false)
            .web(true)
            .and_then(|bindgen| bindgen.typescript(false).generate(&out));
        result.map_err(|error| Failure(format!("cannot make the glue for {program}: {error:#}")))?;
    }
    for file in files(&root().join("static")) {
        let name = file.file_name().expect("a file has a name");
        fs::copy(&file, out.join(name)).map_err(|error| failed("copy the static files", &error))?;
    }
    if profile == Profile::Release {
        compress(&out).map_err(|error| failed("compress target/web", &error))?;
    }
    fs::write(&stamp, profile.name()).map_err(|error| failed("write target/web", &error))?;
    Ok(out)
}

/// Writes `name.br` beside every file that shrinks.
fn compress(dir: &Path) -> std::io::Result<()> {
    for file in files(dir) {
        let bytes = fs::read(&file)?;
        let mut packed = Vec::new();
        {
            let mut writer = brotli::CompressorWriter::new(&mut packed, 1 << 16, 11, 22);
            writer.write_all(&bytes)?;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if packed.len() < bytes.len() {
            if name.ends_with(".wasm") {
                println!("  {name}: {} KB, {} KB with brotli", bytes.len() / 1_000, packed.len() / 1_000);
            }
            fs::write(file.with_file_name(format!("{name}.br")), packed)?;
        }
    }
    Ok(())
}

fn inputs(built: &Path) -> Vec<PathBuf> {
    let programs = PROGRAMS.into_iter().map(|program| built.join(format!("{program}.wasm")));
    programs.chain(files(&root().join("static"))).chain(files(&root().join("web/js"))).collect()
}

/// All files under a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn is_newer(stamp: &Path, inputs: &[PathBuf]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(made) = time(stamp) else { return false };
    inputs.iter().all(|input| time(input).is_some_and(|changed| changed < made))
}
