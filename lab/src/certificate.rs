//! Keys and certificates for tests, made by `openssl` in a folder.

use anyhow::{Context, bail};
use std::path::Path;
use std::process::Command;

/// What the commands may use. Each makes `NAME.key` and `NAME.pem`.
const WORDS: &str = "set -e
    ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    # NAME
    authority() {
        openssl req -x509 $ec -days 2 -subj /CN=$1 -addext keyUsage=keyCertSign,digitalSignature -keyout $1.key -out $1.pem
    }
    # NAME COMMON-NAME AUTHORITY KEY-OPTIONS EXTENSIONS DAYS
    sign() {
        openssl req $4 -nodes -subj /CN=$2 -keyout $1.key -out $1.csr
        printf \"$5\" > $1.ext
        ext=; if [ -n \"$5\" ]; then ext=\"-extfile $1.ext\"; fi
        openssl x509 -req -in $1.csr -CA $3.pem -CAkey $3.key -CAcreateserial -days ${6:-2} $ext -out $1.pem
    }\n";

/// Runs these commands of the shell. They may use `authority NAME` and `sign NAME COMMON-NAME AUTHORITY KEY-OPTIONS EXTENSIONS
/// [DAYS]`, with `\"$ec\"` as options for a key of P-256.
///
/// # Errors
/// What the first command said that failed.
pub fn certificates(folder: &Path, commands: &str) -> anyhow::Result<()> {
    let made = Command::new("sh").args(["-c", &format!("{WORDS}{commands}")]).current_dir(folder).output();
    let made = made.context("there is no shell")?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        bail!("no certificates could be made; is openssl installed (`apt-get install openssl`)? {said}");
    }
    Ok(())
}
