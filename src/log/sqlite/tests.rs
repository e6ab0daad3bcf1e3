//! What can only be shown from inside: commits that fail.

/// What happens in place of a commit.
pub(super) type Fault = fn(&rusqlite::Connection) -> rusqlite::Result<()>;
