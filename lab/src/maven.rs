//! Java programs of Maven Central, fetched once by their coordinates.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

/// The oldest Java that everything here runs on.
pub const OLDEST_JAVA: u32 = 17;
const FETCH_MARK: &str = "complete";

/// Group, name and version.
pub(crate) type Artifact = (&'static str, &'static str, &'static str);

/// Artifacts with all that they need at run time, in one folder of jars under `target/kafka`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Library {
    /// For people.
    pub(crate) name: &'static str,
    /// Its place, with the version.
    pub(crate) folder: &'static str,
    pub(crate) megabytes: u32,
    pub(crate) artifacts: &'static [Artifact],
    /// Groups whose artifacts are left out, because the program that loads this library brings them.
    pub(crate) without: &'static [&'static str],
}

impl Library {
    fn folder(&self) -> PathBuf {
        crate::target().join("kafka").join(self.folder).join("libs")
    }

    pub(crate) fn is_fetched(&self) -> bool {
        self.folder().join(FETCH_MARK).exists()
    }

    /// The folder with its jars.
    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        let folder = self.folder();
        if self.is_fetched() {
            return Ok(folder);
        }
        must_be_on(&path(), "mvn", "Maven")?;
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("pom.xml"), self.pom())?;
        let mut maven = Command::new("mvn");
        maven.args(["-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
        if !self.without.is_empty() {
            maven.arg(format!("-DexcludeGroupIds={}", self.without.join(",")));
        }
        maven.arg(format!("-DoutputDirectory={}", folder.display())).current_dir(&folder);
        process::succeed(&mut maven).with_context(|| {
            format!(
                "Maven cannot fetch {} ({} MB, once); it needs Maven Central (a proxy belongs in ~/.m2/settings.xml)",
                self.name, self.megabytes
            )
        })?;
        fs::write(folder.join(FETCH_MARK), "")?;
        Ok(folder)
    }

    fn pom(&self) -> String {
        let dependency = |(group, artifact, version): &Artifact| {
            format!(
                "    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
                 <version>{version}</version></dependency>\n"
            )
        };
        let dependencies: String = self.artifacts.iter().map(dependency).collect();
        format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n  \
             <groupId>private</groupId>\n  <artifactId>home</artifactId>\n  <version>1</version>\n  \
             <packaging>pom</packaging>\n  <dependencies>\n{dependencies}  </dependencies>\n</project>\n"
        )
    }
}

/// A class of a library that runs in `folder`, whose `log4j2.properties` says what it logs.
pub(crate) fn java(folder: &Path, library: &Library, heap: &str, class: &str) -> Result<Command> {
    must_be_on(&path(), "java", "Java")?;
    let mut java = Command::new("java");
    java.args(["-Xms64m", heap, "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]);
    // Otherwise each of its threads keeps a buffer of the largest record that it ever wrote.
    java.arg("-Djdk.nio.maxCachedBufferSize=1048576");
    java.args(["-Djava.awt.headless=true", "-Dcom.sun.management.jmxremote=false"]);
    java.arg("-Dlog4j2.configurationFile=log4j2.properties").current_dir(folder);
    java.arg("-cp").arg(format!("{}/*", library.fetch()?.display())).arg(class);
    Ok(java)
}

fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn must_be_on(path: &OsStr, program: &str, name: &str) -> Result<()> {
    ensure!(
        std::env::split_paths(path).any(|folder| folder.join(program).is_file()),
        "Kafka needs {name}, but no `{program}` is on the PATH; `cargo xtask prerequisites` installs Java \
         {OLDEST_JAVA} and Maven"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_how_to_install_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("java"), "").unwrap();
        let path = folder.path().as_os_str();
        must_be_on(path, "java", "Java").unwrap();
        assert_eq!(
            must_be_on(path, "mvn", "Maven").unwrap_err().to_string(),
            "Kafka needs Maven, but no `mvn` is on the PATH; `cargo xtask prerequisites` installs Java 17 and Maven"
        );
    }
}
