//! Going down: sockets are told, and then their transports are closed, so that their clients come back by themselves. (Of a
//! socket that is only disconnected they would not.)

use super::{super::App, NAMESPACE, session::Session};
use crate::{delivery::control::Control, fanout::CloseReason};
use socketioxide::{SocketIo, extract::SocketRef};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What is under way for all sockets has so long to finish.
const FINISH: Duration = Duration::from_secs(2);

/// What was sent to them has so long to be taken.
const CLOSE: Duration = Duration::from_secs(2);

/// Waits for the hub to go down, and takes all sockets down with it.
pub(super) async fn go_down(app: Arc<App>, io: SocketIo) {
    app.drain.cancelled().await;
    let sockets = io.of(NAMESPACE).map_or_else(Vec::new, |all| all.sockets());
    let finished = async {
        for session in sockets.iter().filter_map(session) {
            session.work.close();
            session.work.wait().await;
        }
    };
    let silent: Vec<bool> = sockets
        .iter()
        .map(|socket| session(socket).is_some_and(|session| session.is_silent()))
        .collect();
    // Who takes that long is not waited for.
    let _ = timeout(FINISH, finished).await;
    for (socket, _) in sockets
        .into_iter()
        .zip(silent)
        .filter(|(_, silent)| *silent)
    {
        say(&app, &socket);
    }
    let _ = timeout(CLOSE, io.close()).await;
}

/// Of a socket that comes too late.
pub(super) fn turn_away(app: &App, socket: SocketRef) {
    say(app, &socket);
    let _ = socket.disconnect();
}

/// A request may go on for so long.
pub(super) async fn too_long(drain: &CancellationToken) {
    drain.cancelled().await;
    sleep(FINISH + CLOSE).await;
}

fn session(socket: &SocketRef) -> Option<Arc<Session>> {
    socket.extensions.get()
}

/// Tells a socket without subscriptions, each of which says so itself.
fn say(app: &App, socket: &SocketRef) {
    let control = Control::close_for(CloseReason::Draining, app.streams.come_back());
    let _ = socket.emit("closed", &(control.data, None::<&str>));
}
