//! What a client asks for: `subscribe`, `unsubscribe`, `publish`. Whatever it is, the acknowledgement is one object,
//! `{"ok"}` or `{"error"}` with a problem, also where arguments make no sense.

use super::{
    super::{
        App,
        outcome::json_problem,
        problem::{self, Problem, quoted},
        publish,
    },
    args::Asked,
    feed::Feed,
    room::{Unsent, sent},
    session::{Admission, Session},
};
use crate::{fanout::Subscription, ingest::json::parse_event};
use serde_json::{json, value::RawValue};
use socketioxide::{
    adapter::LocalAdapter,
    extract::{AckSender, SocketRef},
    handler::{FromMessageParts, Value},
    socket::Socket,
};
use std::{convert::Infallible, future::Future, sync::Arc};

/// An event of a client, with its arguments as they came.
pub(super) struct Call {
    packet: Value,
    ack: Ack,
    admission: Admission,
}

/// Where the answer goes, if the client wants one.
struct Ack {
    socket: Arc<Socket>,
    id: Option<i64>,
}

/// Taken out of a packet at once, so that what is under way is counted before a task is spawned for it.
impl FromMessageParts<LocalAdapter> for Call {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket>,
        packet: &mut Value,
        id: &Option<i64>,
    ) -> Result<Self, Infallible> {
        let session = socket.extensions.get::<Arc<Session>>();
        let bytes = packet.len();
        Ok(Self {
            admission: session.map_or(Admission::TooMany, |session| session.admit(bytes)),
            packet: std::mem::replace(packet, nothing()),
            ack: Ack {
                socket: Arc::clone(socket),
                id: *id,
            },
        })
    }
}

impl Ack {
    /// Sends the answer once there is room.
    async fn send(&self, app: &App, session: &Session, answer: &RawValue) -> Result<(), Unsent> {
        if self.id.is_none() {
            return Ok(());
        }
        let bytes = answer.get().len();
        session
            .room
            .send(bytes, app.write_timeout, || self.try_send(answer))
            .await
    }

    fn try_send(&self, answer: &RawValue) -> Result<(), Unsent> {
        // One that did not fit is used up.
        let Ok(ack) = AckSender::from_message_parts(&self.socket, &mut nothing(), &self.id);
        sent(ack.send(answer))
    }
}

/// Answers an event.
pub(super) async fn answer(app: Arc<App>, socket: SocketRef, call: Call) {
    let Some(session) = socket.extensions.get::<Arc<Session>>() else {
        return;
    };
    let Call {
        packet,
        ack,
        admission,
    } = call;
    let work = async {
        let result = match &admission {
            Admission::Call { .. } => handle(&app, &socket, &session, &packet, &ack).await,
            Admission::Refusal { .. } => Err(busy()),
            Admission::TooMany => return Err(Unsent::Full),
        };
        drop(packet);
        match result {
            Ok(Done::Answered) => Ok(()),
            Ok(Done::Ok(ok)) => {
                let answer = raw(format!("{{\"ok\":{ok}}}"));
                ack.send(&app, &session, &answer).await
            }
            Err(problem) => ack.send(&app, &session, &error(&problem)).await,
        }
    };
    let work = tracked(&app, &session, work);
    if work.await == Err(Unsent::Full) {
        let _ = socket.clone().disconnect();
    }
}

fn busy() -> Problem {
    let detail =
        "more of the socket's requests are under way than it may have; wait for their answers";
    Problem::new(&problem::BUSY, detail)
}

/// In place of a packet.
fn nothing() -> Value {
    Value::Bytes(Vec::new().into())
}

/// Runs so that a drain waits for it.
fn tracked<F: Future>(app: &App, session: &Session, work: F) -> impl Future<Output = F::Output> {
    app.tasks.track_future(session.work.track_future(work))
}

/// What became of a request.
enum Done {
    /// It was answered, since something follows the answer.
    Answered,
    /// Its answer is this JSON.
    Ok(String),
}

async fn handle(
    app: &Arc<App>,
    socket: &SocketRef,
    session: &Arc<Session>,
    packet: &Value,
    ack: &Ack,
) -> Result<Done, Problem> {
    let wrong = |detail: &str| Problem::new(&problem::PARAMETER, detail);
    let text = match packet {
        Value::Str(text, None) => text.as_str(),
        _ => {
            return Err(wrong(
                "binary arguments are not taken; send bytes as Base64",
            ));
        }
    };
    let arguments: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_| wrong("the arguments are not JSON"))?;
    let name = arguments.first().map_or("", |name| name.get());
    let name: String = serde_json::from_str(name).unwrap_or_default();
    let arguments = &arguments[1.min(arguments.len())..];
    let most = match name.as_str() {
        "subscribe" => 2,
        "unsubscribe" | "publish" => 1,
        _ => {
            let detail = format!(
                "there is no event {} here; there are: subscribe, unsubscribe, publish",
                quoted(&name)
            );
            return Err(Problem::new(&problem::NOT_FOUND, detail));
        }
    };
    if arguments.len() > most {
        return Err(wrong(&format!(
            "`{name}` takes {most} arguments at most, and a callback"
        )));
    }
    let argument = |index: usize| arguments.get(index).copied();
    match name.as_str() {
        "subscribe" => {
            let asked = Asked::of(app, argument(0), argument(1))?;
            subscribe(app, socket, session, asked, Some(ack)).await?;
            Ok(Done::Answered)
        }
        "unsubscribe" => {
            let name = argument(0).and_then(|name| serde_json::from_str::<String>(name.get()).ok());
            let name =
                name.ok_or_else(|| wrong("`unsubscribe` takes the name of a subscription"))?;
            let at = session.end(&name).await?;
            Ok(Done::Ok(
                json!({ "sub": name, "cursor": at.map(|at| at.to_string()) }).to_string(),
            ))
        }
        _ => {
            let event = argument(0).ok_or_else(|| wrong("`publish` takes an event"))?;
            let draft = parse_event(event.get(), app.ingest.bounds)
                .map_err(|error| json_problem(&error))?;
            let (_, result) = publish::store(app, draft).await?;
            Ok(Done::Ok(result))
        }
    }
}

/// Begins the subscription that a socket was opened for.
pub(super) async fn listen(app: Arc<App>, socket: SocketRef, asked: Asked) {
    if let Some(session) = socket.extensions.get::<Arc<Session>>() {
        let work = subscribe(&app, &socket, &session, asked, None);
        // Its name is not in use before, and its words were checked.
        let _ = tracked(&app, &session, work).await;
    }
}

async fn subscribe(
    app: &Arc<App>,
    socket: &SocketRef,
    session: &Arc<Session>,
    asked: Asked,
    ack: Option<&Ack>,
) -> Result<(), Problem> {
    let draining = || Problem::new(&problem::DRAINING, "connect again, here or to another node");
    if app.drain.is_cancelled() {
        return Err(draining());
    }
    let filters = asked.filter.len();
    let entered = session.enter(asked.name, filters)?;
    let (filter, hub) = (Arc::new(asked.filter), &app.hub);
    let starting = Subscription::start(hub, &filter, asked.begin, asked.requested, asked.lag);
    let starting = entered.stop().run_until_cancelled(starting);
    let subscription = match app.drain.run_until_cancelled(starting).await {
        Some(Some(subscription)) => subscription,
        Some(None) => {
            let detail = "the subscription was ended before it began";
            return Err(Problem::new(&problem::NOT_FOUND, detail));
        }
        None => return Err(draining()),
    };
    let cursor = subscription.cursor();
    if let Some(ack) = ack {
        let ok = json!({ "sub": entered.name(), "cursor": cursor.to_string() });
        let ok = raw(json!({ "ok": ok }).to_string());
        // Where that fails, so does the first event.
        let _ = ack.send(app, session, &ok).await;
    }
    let feed = Feed::new(app, socket.clone(), entered, subscription);
    app.tasks.spawn(session.work.track_future(feed.run()));
    Ok(())
}

fn error(problem: &Problem) -> Box<RawValue> {
    raw(json!({ "error": problem.to_json() }).to_string())
}

/// JSON as it is. (What is none would be null.)
fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_default()
}
