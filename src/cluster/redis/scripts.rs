//! The scripts that run inside Redis, each in one step.

use redis::{Cmd, Script, cmd};

/// The scripts, with their hashes.
pub(super) struct Scripts {
    pub(super) append: Named,
    pub(super) trim: Named,
    pub(super) ends: Named,
    pub(super) permits: Named,
}

/// A script and the name that Redis gives it.
pub(super) struct Named {
    source: &'static str,
    hash: String,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            append: Named::new(include_str!("scripts/append.lua")),
            trim: Named::new(include_str!("scripts/trim.lua")),
            ends: Named::new(include_str!("scripts/ends.lua")),
            permits: Named::new(include_str!("scripts/permits.lua")),
        }
    }

    pub(super) fn all(&self) -> [&Named; 4] {
        [&self.append, &self.trim, &self.ends, &self.permits]
    }
}

impl Named {
    fn new(source: &'static str) -> Self {
        Self {
            source,
            hash: Script::new(source).get_hash().to_owned(),
        }
    }

    /// The command that makes the script known.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.source);
        load
    }

    /// The command that runs it; its arguments follow.
    pub(super) fn run(&self, keys: &[&str]) -> Cmd {
        let mut run = cmd("EVALSHA");
        run.arg(&self.hash).arg(keys.len()).arg(keys);
        run
    }
}
