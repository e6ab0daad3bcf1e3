//! The contract of [`super::EventLog`] at its simplest.
