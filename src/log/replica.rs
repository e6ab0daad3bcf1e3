//! What a local log does for a cluster: it is filled with what a journal has, in place of appends of its own.
//!
//! Positions, times and what to do with keys come from outside, so that all nodes end with the same events. What the one
//! who fills the log has to remember (its place in the journal, above all) is saved in the same transaction.

use super::{AppendError, Batch, BoxFuture, EventLog, Outcome, ReadError};
use bytes::Bytes;
use std::sync::Arc;

/// A local log that can be a replica.
pub trait ReplicaLog: EventLog {
    /// Applies changes in their order and saves the marks and the state with them, all in one transaction. Tails get what
    /// was stored after it. The outcomes are those of the [`Change::Store`]s.
    ///
    /// # Errors
    ///
    /// [`AppendError::Unknown`]: [`ReplicaLog::state`] tells whether it was applied. Else it was not.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it may be applied even if the future is dropped.
    fn apply(&self, apply: Arc<Apply>) -> BoxFuture<'_, Result<Vec<Vec<Outcome>>, AppendError>>;

    /// The state saved last; `None` in a log that was never applied to.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: try again.
    fn state(&self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>>;

    /// What is known of the batch's keys within their window: for each draft, whether it is a duplicate or a conflict.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: try again.
    fn known(&self, batch: Batch) -> BoxFuture<'_, Result<Looked, ReadError>>;

    /// The newest mark at or before that place, with its place.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: try again.
    fn mark(&self, at_most: u64) -> BoxFuture<'_, Result<Option<(u64, u64)>, ReadError>>;

    /// The epochs whose cursors are partly good in the present one, and up to where, oldest first.
    fn ancestors(&self) -> Vec<Ancestor>;
}

/// A batch, and what is known of each of its drafts.
pub type Looked = (Batch, Vec<Option<Outcome>>);

/// What is applied together.
#[derive(Debug, Default)]
pub struct Apply {
    /// In their order.
    pub changes: Vec<Change>,
    /// Places in the journal, with a digest of what stood there: rising, for [`ReplicaLog::mark`].
    pub marks: Vec<(u64, u64)>,
    /// What [`ReplicaLog::state`] gives from now on.
    pub state: Bytes,
}

/// One change of a replica.
#[derive(Debug)]
pub enum Change {
    /// Stores a batch.
    Store(Store),
    /// Begins an epoch: all beyond `to` is dropped.
    Epoch {
        /// The new one.
        epoch: u64,
        /// Where in the journal the one that ends began.
        ended_began_at: u64,
        /// The position up to which both are the same.
        to: u64,
        /// Marks beyond this place are dropped.
        mark: u64,
    },
    /// Drops everything, and knows nothing of what was up to a position: it is told as removed.
    Begin {
        /// The position.
        at: u64,
        /// Events up to there may be as young as this, in ms since 1970 UTC.
        time_ms: u64,
        /// The epoch.
        epoch: u64,
        /// Its ancestors.
        ancestors: Vec<Ancestor>,
        /// Whether keys and marks stay: what is dropped is known, but not what became of it elsewhere.
        keeps_keys: bool,
    },
}

/// A batch with what its writer decided for all nodes.
#[derive(Debug)]
pub struct Store {
    /// Of its first draft; the others follow, whether stored or not.
    pub position: u64,
    /// When it was written, in ms since 1970 UTC.
    pub time_ms: u64,
    /// Its writer found none of its keys up to this position: only what lies beyond counts.
    pub looked: u64,
    /// The drafts.
    pub batch: Batch,
}

/// An epoch that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its number.
    pub epoch: u64,
    /// Where in the journal it began.
    pub began_at: u64,
    /// Its cursors up to this position are good in the present epoch.
    pub shared_to: u64,
}

/// Marks that are kept; past that the oldest go.
pub(crate) const MARKS_MAX: usize = 1 << 18;

/// Adds the epoch that ends to its ancestors.
pub(crate) fn end_epoch(ancestors: &mut Vec<Ancestor>, ended: Ancestor) {
    /// Past that the oldest are forgotten: their cursors are told as unknown epochs.
    const ANCESTORS_MAX: usize = 32;
    for ancestor in ancestors.iter_mut() {
        ancestor.shared_to = ancestor.shared_to.min(ended.shared_to);
    }
    ancestors.push(ended);
    let over = ancestors.len().saturating_sub(ANCESTORS_MAX);
    ancestors.drain(..over);
}

/// The position up to which cursors of an epoch that ended are good in the present one.
pub(crate) fn shared_with(ancestors: &[Ancestor], epoch: u64) -> Option<u64> {
    let ancestor = ancestors.iter().rev().find(|old| old.epoch == epoch)?;
    Some(ancestor.shared_to)
}
