//! Delivery: how a subscription reaches its reader. Transports are thin bodies over the same
//! [`Subscription`](crate::fanout::Subscription); they never see an engine.

pub mod control;
pub mod form;
pub mod page;
pub mod silence;
pub mod stream;
