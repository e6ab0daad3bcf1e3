//! Going down: sockets are told, and then their transports end, so that their clients come back by themselves. Of a socket
//! that is only disconnected they would not, and some would not of a transport that is closed in words.

use super::{super::App, NAMESPACE, session::Session};
use crate::{delivery::control::Control, fanout::CloseReason};
use socketioxide::{SocketIo, extract::SocketRef};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What is under way for all sockets has so long to finish.
const FINISH: Duration = Duration::from_secs(2);

/// What was sent to them has so long to be taken.
const SETTLE: Duration = Duration::from_secs(1);

/// Waits for the hub to go down, and takes all sockets down with it. `end` cuts the connections of WebSockets.
///
/// Who polls is answered once more, and then refused; of such a session only the library's timer is left, which ends with
/// the next ping.
pub(super) async fn go_down(app: Arc<App>, io: SocketIo, end: CancellationToken) {
    app.drain.cancelled().await;
    let sockets = io.of(NAMESPACE).map_or_else(Vec::new, |all| all.sockets());
    let sessions: Vec<_> = sockets
        .iter()
        .filter_map(|socket| Some((socket, session(socket)?)))
        .collect();
    let silent: Vec<bool> = sessions
        .iter()
        .map(|(_, session)| session.is_silent())
        .collect();
    let finished = async {
        for (_, session) in &sessions {
            session.work.close();
            session.work.wait().await;
        }
    };
    // Who takes longer is not waited for, here and below.
    let _ = timeout(FINISH, finished).await;
    for ((socket, _), silent) in sessions.iter().zip(silent) {
        if silent {
            say(&app, socket);
        }
    }
    let settled = async {
        for (_, session) in &sessions {
            let _ = session.room.settle(SETTLE).await;
        }
    };
    let _ = timeout(SETTLE, settled).await;
    end.cancel();
    if sessions.iter().any(|(_, session)| !session.room.is_told()) {
        // Their connections are another program's.
        let _ = timeout(SETTLE, io.close()).await;
    }
}

/// Of a socket that comes too late.
pub(super) fn turn_away(app: &App, socket: SocketRef) {
    say(app, &socket);
    let _ = socket.disconnect();
}

/// A request may go on for so long.
pub(super) async fn too_long(drain: &CancellationToken) {
    drain.cancelled().await;
    sleep(FINISH + SETTLE).await;
}

fn session(socket: &SocketRef) -> Option<Arc<Session>> {
    socket.extensions.get()
}

/// Tells a socket without subscriptions, each of which says so itself.
fn say(app: &App, socket: &SocketRef) {
    let control = Control::close_for(CloseReason::Draining, app.streams.come_back());
    if let Some(session) = session(socket) {
        session.room.take(0);
    }
    let _ = socket.emit("closed", &(control.data, None::<&str>));
}
