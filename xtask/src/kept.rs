//! Reports and figures as JSON files under `target/`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub fn write<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    fs::write(path, serde_json::to_string_pretty(value)? + "\n")
        .with_context(|| format!("{} cannot be written", path.display()))
}

pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("{} is not here: measure first", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} cannot be read", path.display()))
}
