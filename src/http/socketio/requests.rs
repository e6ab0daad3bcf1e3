//! A socket's requests. The library hands packets over one after the other; here they keep that order. They are done by one
//! task, which is there for as long as there are any: what a client publishes in a row goes to the log together, and
//! whatever else it asks is done when all before is.

use super::{
    super::{
        App,
        problem::{self, Problem},
        publishes::Publishes,
    },
    answers::{self, Answer, Done, To},
    args::Asked,
    call::Call,
    feed::Feed,
    session::{Admission, Session},
};
use crate::{cursor::Cursor, fanout::Subscription};
use serde_json::json;
use socketioxide::{
    adapter::LocalAdapter,
    handler::{FromConnectParts, MessageHandler, Value},
    socket::Socket,
};
use std::{convert::Infallible, sync::Arc};
use tokio::task::coop::consume_budget;

/// A request as it came.
pub(super) struct Request {
    /// None if it is to be refused: the socket has too many.
    packet: Option<Value>,
    to: To,
}

/// Takes requests from the library, which calls this for each packet in turn, whatever carried it. (A handler that is a
/// closure would be a task for each, and tasks have no order.)
pub(super) struct Inlet(pub(super) Arc<App>);

impl MessageHandler<LocalAdapter, Inlet> for Inlet {
    fn call(&self, socket: Arc<Socket>, packet: Value, ack: Option<i64>) {
        let Some(session) = socket.extensions.get::<Arc<Session>>() else {
            return;
        };
        let (packet, place) = match session.admit(packet.len()) {
            Admission::Call(place) => (Some(packet), place),
            Admission::Refusal(place) => (None, place),
            Admission::TooMany => {
                let _ = socket.disconnect();
                return;
            }
        };
        let place = Some(place);
        let to = To { ack, place };
        if session.requests.add(Request { packet, to }) {
            Worker::new(&self.0, socket, session).spawn(None);
        }
    }
}

/// A socket as a worker needs it.
pub(super) struct Connected(Arc<Socket>);

impl FromConnectParts<LocalAdapter> for Connected {
    type Error = Infallible;

    fn from_connect_parts(socket: &Arc<Socket>, _: &Option<Value>) -> Result<Self, Infallible> {
        Ok(Self(Arc::clone(socket)))
    }
}

/// Does the requests of a socket from now on, after the subscription that it was opened for.
pub(super) fn begin(app: &Arc<App>, Connected(socket): Connected, opened_for: Option<Asked>) {
    if let Some(session) = socket.extensions.get::<Arc<Session>>()
        && (opened_for.is_some() || !session.requests.leave())
    {
        Worker::new(app, socket, session).spawn(opened_for);
    }
}

/// Does what a socket asks for.
struct Worker {
    app: Arc<App>,
    socket: Arc<Socket>,
    session: Arc<Session>,
    publishes: Publishes<To>,
}

impl Worker {
    fn new(app: &Arc<App>, socket: Arc<Socket>, session: Arc<Session>) -> Self {
        Self {
            app: Arc::clone(app),
            socket,
            session,
            publishes: Publishes::new(app.ingest.clone(), app.tasks.clone()),
        }
    }

    /// A drain waits for it.
    fn spawn(self, opened_for: Option<Asked>) {
        let (app, session) = (Arc::clone(&self.app), Arc::clone(&self.session));
        let serving = session.work.track_future(self.serve(opened_for));
        app.tasks.spawn(serving);
    }

    /// Until nothing waits. What came before the socket is gone is done all the same.
    async fn serve(mut self, opened_for: Option<Asked>) {
        if let Some(asked) = opened_for {
            // Its name is not in use before, and its words were checked.
            let (ack, place) = (None, None);
            self.subscribe(asked, To { ack, place }).await;
        }
        loop {
            if self.publishes.is_full() {
                self.settle().await;
            }
            match self.session.requests.next() {
                Some(request) => self.take(request).await,
                None if !self.publishes.is_empty() => self.settle().await,
                None if self.session.requests.leave() => return,
                None => {}
            }
            consume_budget().await;
        }
    }

    async fn take(&mut self, Request { packet, to }: Request) {
        let call = match &packet {
            Some(packet) => Call::of(&self.app, packet),
            None => Err(busy()),
        };
        drop(packet);
        match call {
            Ok(Call::Publish(draft)) => self.publishes.add(*draft, to),
            Ok(Call::Subscribe(asked)) => {
                self.settle().await;
                self.subscribe(*asked, to).await;
            }
            Ok(Call::Unsubscribe(name)) => {
                self.settle().await;
                let ended = self.unsubscribe(name).await;
                self.answer(to, Done::Result(ended));
            }
            Err(problem) => {
                self.settle().await;
                self.answer(to, Done::Result(Err(problem)));
            }
        }
    }

    /// Publishes what was gathered.
    async fn settle(&mut self) {
        while !self.publishes.is_empty() {
            for (to, result) in self.publishes.next().await {
                self.answer(to, Done::Result(result));
            }
        }
    }

    async fn unsubscribe(&self, name: String) -> Result<String, Problem> {
        let at = self.session.end(&name).await?;
        let ok = json!({ "sub": name, "cursor": at.as_ref().map(Cursor::to_string) });
        Ok(ok.to_string())
    }

    /// Begins a subscription, which then goes on beside what follows.
    async fn subscribe(&self, asked: Asked, to: To) {
        match self.start(asked, to.ack.is_some()).await {
            Ok(Some(feed)) => self.answer(to, Done::Begun(Box::new(feed))),
            // The socket is gone.
            Ok(None) => {}
            Err(problem) => self.answer(to, Done::Result(Err(problem))),
        }
    }

    async fn start(&self, asked: Asked, acknowledged: bool) -> Result<Option<Feed>, Problem> {
        let app = &self.app;
        let elsewhere = |kind| Problem::new(kind, "connect again, here or to another node");
        if app.drain.is_cancelled() {
            return Err(elsewhere(&problem::DRAINING));
        }
        let filters = asked.filter.len();
        let entered = self.session.enter(asked.name, filters)?;
        let (filter, hub) = (Arc::new(asked.filter), &app.hub);
        let starting = Subscription::start(hub, &filter, asked.begin, asked.requested, asked.lag);
        let starting = entered.stop().run_until_cancelled(starting);
        let subscription = match app.drain.run_until_cancelled(starting).await {
            Some(Some(subscription)) => subscription,
            Some(None) => return Ok(None),
            None => return Err(elsewhere(&problem::DRAINING)),
        };
        if acknowledged && subscription.has_ended() {
            return Err(elsewhere(&problem::NOT_READY));
        }
        let socket = Arc::clone(&self.socket).into();
        Ok(Some(Feed::new(app, socket, entered, subscription)))
    }

    fn answer(&self, to: To, done: Done) {
        if to.ack.is_some() || matches!(done, Done::Begun(_)) {
            let answer = Answer { to, done };
            answers::add(&self.app, &self.socket, &self.session, answer);
        }
    }
}

fn busy() -> Problem {
    let detail =
        "more of the socket's requests are under way than it may have; wait for their answers";
    Problem::new(&problem::BUSY, detail)
}
