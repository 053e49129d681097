//! The source of the PostgreSQL that is installed here, and what is built of it.
//!
//! Asks the package manager, from wherever it is set up to fetch packages, and knows no host itself. Everything is kept under
//! `target/suites`; what is there is not fetched again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use domicile_tests::program;

use super::quietly;
use crate::progress;

/// The source tree and the headers of the installed version.
pub struct Source {
    /// The root of the source tree.
    tree: PathBuf,
    /// The files of the development package, as if `/` were this.
    development: PathBuf,
    /// `15`, `15.18`, …
    major: String,
    /// Where the rest is kept.
    directory: PathBuf,
}

impl Source {
    /// What is in `directory`, or else fetched into it.
    pub fn get(directory: &Path) -> Result<Self, String> {
        let (version, package) = installed_version()?;
        let major = version.split('.').next().unwrap_or_default().to_owned();
        let directory = directory.join(&package);
        let (tree, development) = (directory.join(format!("postgresql-{version}")), directory.join("development"));
        let source = Self { tree, development, major, directory };
        source.fetch_tree(&package)?;
        source.fetch_development(&package)?;
        Ok(source)
    }

    /// `src/test/regress`, `src/test/modules/libpq_pipeline`, …
    pub fn path(&self, inside: &str) -> PathBuf {
        self.tree.join(inside)
    }

    /// The directory of the server's own modules.
    pub fn modules(&self) -> PathBuf {
        self.installed_library()
    }

    /// The program that runs the regression suite.
    pub fn pg_regress(&self) -> Result<PathBuf, String> {
        let inside = "pgxs/src/test/regress/pg_regress";
        let places = [self.installed_library(), self.development.join("usr/lib/postgresql").join(&self.major).join("lib")];
        let found = places.iter().map(|place| place.join(inside)).find(|path| path.is_file());
        found.ok_or_else(|| "no pg_regress: it comes with PostgreSQL's client package".to_owned())
    }

    /// Compiles one file of the tree to `name`, unless that is there.
    pub fn compile(&self, file: &str, name: &str, arguments: &[&str]) -> Result<PathBuf, String> {
        let made = self.directory.join(name);
        if made.is_file() {
            return Ok(made);
        }
        let headers = Path::new("usr/include/postgresql");
        let mut cc = Command::new("cc");
        cc.arg("-O1").arg("-o").arg(&made).arg(self.path(file));
        for inside in [headers.to_owned(), headers.join("internal"), headers.join(&self.major).join("server")] {
            cc.arg("-I").arg(self.development.join(&inside)).arg("-I").arg(Path::new("/").join(&inside));
        }
        cc.arg("-L").arg(self.development.join("usr/lib/postgresql").join(&self.major).join("lib")).args(arguments);
        quietly(&mut cc).map(|()| made)
    }

    fn installed_library(&self) -> PathBuf {
        Path::new("/usr/lib/postgresql").join(&self.major).join("lib")
    }

    fn fetch_tree(&self, package: &str) -> Result<(), String> {
        if self.path("src/test/regress/parallel_schedule").is_file() {
            return Ok(());
        }
        let apt = self.directory.join("apt");
        write_source_lists(&apt)?;
        let name = format!("postgresql-{}={package}", self.major);
        progress::run("lists of source packages", apt_get(&apt, &["update"]))?;
        let arguments = ["source", "--download-only", "--only-source", &name];
        progress::run("PostgreSQL's source", apt_get(&apt, &arguments))?;
        let archive = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".orig.tar."));
        let files = fs::read_dir(&apt).into_iter().flatten().flatten().map(|entry| entry.path());
        let archive = files.into_iter().find(archive).ok_or_else(|| format!("{name}: no .orig.tar came"))?;
        let mut tar = Command::new("tar");
        tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(&self.directory);
        progress::run("unpack", tar).map(drop)
    }

    fn fetch_development(&self, package: &str) -> Result<(), String> {
        let header = |root: &Path| root.join("usr/include/postgresql").join(&self.major).join("server/postgres.h").is_file();
        if header(Path::new("/")) || header(&self.development) {
            return Ok(());
        }
        fs::create_dir_all(&self.development).map_err(|error| format!("{}: {error}", self.development.display()))?;
        let name = format!("postgresql-server-dev-{}={package}", self.major);
        let mut download = Command::new("apt-get");
        download.args(["-o", "APT::Sandbox::User=root", "download", &name]).current_dir(&self.development);
        progress::run("PostgreSQL's headers", download)?;
        let files = fs::read_dir(&self.development).into_iter().flatten().flatten().map(|entry| entry.path());
        let deb = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let deb = deb.ok_or_else(|| format!("{name}: no package came"))?;
        quietly(Command::new("dpkg").arg("--extract").arg(deb).arg(&self.development))
    }
}

/// The version of the installed server, and the package's: `15.18` and `15.18-0+deb12u1`.
fn installed_version() -> Result<(String, String), String> {
    let output = Command::new(program::need("postgres")?).arg("--version").output();
    let said = program::both(&output.map_err(|error| format!("postgres --version: {error}"))?);
    version(&said).ok_or_else(|| format!("{:?} names no package: the source of that version cannot be found", said.trim()))
}

fn version(said: &str) -> Option<(String, String)> {
    // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
    let (version, package) = said.split_once("(PostgreSQL) ")?.1.split_once(" (")?;
    let package = package.trim().strip_suffix(')')?.split_whitespace().last()?;
    Some((version.to_owned(), package.to_owned()))
}

/// `apt-get` with source lists and state of its own, so that nothing of the machine changes.
fn apt_get(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    for option in [
        "Dir::Etc::SourceList=/dev/null".to_owned(),
        option("Dir::Etc::SourceParts", directory.join("sources")),
        option("Dir::State::Lists", directory.join("lists")),
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.arg("-o").arg(option);
    }
    command.args(arguments).current_dir(directory);
    command
}

/// The machine's own sources of packages, asked for source packages instead of binary ones.
fn write_source_lists(apt: &Path) -> Result<(), String> {
    let sources = apt.join("sources");
    for directory in [&sources, &apt.join("lists/partial")] {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let files = parts.into_iter().chain([PathBuf::from("/etc/apt/sources.list")]);
    for file in files {
        let (Ok(text), Some(name)) = (fs::read_to_string(&file), file.file_name()) else { continue };
        let list = file.extension().is_some_and(|extension| extension == "list");
        let deb822 = file.extension().is_some_and(|extension| extension == "sources");
        if list || deb822 {
            let copy = sources.join(name);
            fs::write(&copy, for_sources(&text)).map_err(|error| format!("{}: {error}", copy.display()))?;
        }
    }
    Ok(())
}

fn for_sources(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("deb ") {
        Some(rest) => format!("deb-src {rest}\n"),
        None if line.starts_with("Types:") => "Types: deb-src\n".to_owned(),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_named_by_the_server() {
        let found = version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(found, Some(("15.18".to_owned(), "15.18-0+deb12u1".to_owned())));
        assert_eq!(version("postgres (PostgreSQL) 19devel\n"), None);
    }

    #[test]
    fn both_forms_of_sources_are_asked_for_source_packages() {
        assert_eq!(for_sources("deb http://a b c\n# x\n"), "deb-src http://a b c\n# x\n");
        assert_eq!(for_sources("Types: deb deb-src\nURIs: http://a\n"), "Types: deb-src\nURIs: http://a\n");
    }
}
