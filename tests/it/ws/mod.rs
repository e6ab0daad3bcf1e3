//! WebSockets: `docs/websocket.md` as clients see it.

mod bad_input;
mod clients;
mod drain;
mod handshake;
mod http2;
mod lag;
mod protocol;
mod resume;
