//! What a socket's requests are answered, in the order in which they were done. That waits for room in the socket's buffer,
//! and so for the client, while the requests themselves go on.

use super::{
    super::{App, problem::Problem},
    feed::Feed,
    room::{Unsent, sent},
    session::Session,
};
use serde_json::{json, value::RawValue};
use socketioxide::{
    adapter::LocalAdapter,
    extract::AckSender,
    handler::{FromMessageParts, Value},
    socket::Socket,
};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// An answer that waits for its turn.
pub(super) struct Answer {
    pub(super) to: To,
    pub(super) done: Done,
}

/// Where an answer goes.
pub(super) struct To {
    /// None if the client wants none.
    pub(super) ack: Option<i64>,
    /// Its request's, if it is one.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// What became of a request.
pub(super) enum Done {
    /// This JSON, or a problem.
    Result(Result<String, Problem>),
    /// A subscription begins once that is said.
    Begun(Box<Feed>),
}

/// Has an answer sent once those before are, and there is room.
pub(super) fn add(app: &Arc<App>, socket: &Arc<Socket>, session: &Arc<Session>, answer: Answer) {
    if session.answers.add(answer) {
        let sender = Sender {
            app: Arc::clone(app),
            socket: Arc::clone(socket),
            session: Arc::clone(session),
            takes: true,
        };
        app.tasks.spawn(session.work.track_future(sender.run()));
    }
}

struct Sender {
    app: Arc<App>,
    socket: Arc<Socket>,
    session: Arc<Session>,
    /// Whether the client takes answers: nobody waits long for it more than once.
    takes: bool,
}

impl Sender {
    /// Until no answer waits.
    async fn run(mut self) {
        loop {
            match self.session.answers.next() {
                Some(answer) => self.give(answer).await,
                None if self.session.answers.leave() => return,
                None => {}
            }
        }
    }

    async fn give(&mut self, Answer { to, done }: Answer) {
        match done {
            Done::Result(result) => self.send(to.ack, result).await,
            Done::Begun(feed) => self.begin(to.ack, *feed).await,
        }
        drop(to.place);
    }

    async fn begin(&mut self, ack: Option<i64>, mut feed: Feed) {
        let opening = feed.open(ack.is_some());
        match self.session.gone.run_until_cancelled(opening).await {
            Some(Ok(())) => {}
            Some(Err(end)) => return feed.over(&end),
            None => return,
        }
        let ok = json!({ "sub": feed.name(), "cursor": feed.cursor().to_string() });
        self.send(ack, Ok(ok.to_string())).await;
        let running = self.session.work.track_future(feed.run());
        self.app.tasks.spawn(running);
    }

    /// Sends an answer once there is room, if the client wants one and is there.
    async fn send(&mut self, ack: Option<i64>, result: Result<String, Problem>) {
        if ack.is_none() || !self.takes {
            return;
        }
        let answer = match result {
            Ok(ok) => format!("{{\"ok\":{ok}}}"),
            Err(problem) => json!({ "error": problem.to_json() }).to_string(),
        };
        let bytes = answer.len();
        // It is JSON. (What is none would be null.)
        let answer = RawValue::from_string(answer).unwrap_or_default();
        let (room, patience) = (&self.session.room, self.app.write_timeout);
        let sending = room.send(bytes, patience, || self.try_send(ack, &answer));
        let sent = self.session.gone.run_until_cancelled(sending).await;
        self.takes = sent == Some(Ok(()));
        if sent == Some(Err(Unsent::Full)) {
            let _ = Arc::clone(&self.socket).disconnect();
        }
    }

    fn try_send(&self, ack: Option<i64>, answer: &RawValue) -> Result<(), Unsent> {
        // One that did not fit is used up.
        let mut nothing = Value::Bytes(Vec::new().into());
        let Ok(ack): Result<AckSender<LocalAdapter>, _> =
            AckSender::from_message_parts(&self.socket, &mut nothing, &ack);
        sent(ack.send(answer))
    }
}
