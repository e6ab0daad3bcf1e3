//! The default engine: one SQLite file.
use super::*;
/// x
#[derive(Debug, thiserror::Error)]
pub enum OpenError {}
/// x
pub enum Durability {
    /// x
    Sync,
    /// x
    Os,
}
/// x
pub type SqliteLog = super::memory::MemoryLog;
impl super::memory::MemoryLog {
    /// x
    pub fn open(_: &std::path::Path, _: Durability, o: LogOptions) -> Result<Self, OpenError> {
        Ok(Self::new(o))
    }
}
