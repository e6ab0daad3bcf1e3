//! `tidings config` and `tidings log new-epoch`: what one does with a hub that does not run.

use super::HubArgs;
use anyhow::Context as _;
use std::{io::Write as _, process::ExitCode};
use tidings::config::Engine;

/// Prints the effective configuration as TOML.
pub(super) fn config(args: &HubArgs) -> anyhow::Result<ExitCode> {
    let toml = args.load()?.to_toml();
    // Whoever closed standard output has seen enough.
    let _ = std::io::stdout().lock().write_all(toml.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Gives the log in the data directory a new epoch.
pub(super) fn new_epoch(args: &HubArgs) -> anyhow::Result<ExitCode> {
    let config = args.load()?.config;
    anyhow::ensure!(
        config.log.engine == Engine::Sqlite,
        "log.engine is \"memory\": it has a new epoch at each start"
    );
    anyhow::ensure!(
        config.cluster.journal.is_none(),
        "in a cluster the epoch is the journal's: nodes begin a new one by themselves where it lost something"
    );
    let dir = &config.data_dir;
    let (old, new) = tidings::log::sqlite::new_epoch(dir)
        .with_context(|| format!("cannot begin a new epoch in {}", dir.display()))?;
    let _ = writeln!(
        std::io::stdout().lock(),
        "The log in {} was in epoch {old:x}, and is now in {new:x}: readers of the old one are told \
         of a gap.",
        dir.display()
    );
    Ok(ExitCode::SUCCESS)
}
