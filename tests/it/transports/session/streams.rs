//! Streams over HTTP: Server-Sent Events in their variants, and lines of JSON.

use super::{
    Item, Seen, Start, Wanted, http::Http, parameter, path_of, receive_bytes, unavailable,
};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::Value;
use std::{io, net::SocketAddr};

pub(in crate::transports) struct Stream {
    http: Http,
    form: Form,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Data,
    Envelope,
    Lines,
}

impl Stream {
    pub(super) async fn open(
        address: SocketAddr,
        wanted: &Wanted<'_>,
        lines: bool,
        random: &mut StdRng,
    ) -> io::Result<Self> {
        let form = match (lines, random.random()) {
            (true, _) => Form::Lines,
            (false, true) => Form::Data,
            (false, false) => Form::Envelope,
        };
        let (mut headers, mut more) = (Vec::new(), Vec::new());
        match (form, random.random()) {
            (Form::Lines, true) => headers.push(("Accept", "application/x-ndjson")),
            (Form::Lines, false) => more.push("format=ndjson".to_owned()),
            (_, true) => headers.push(("Accept", "text/event-stream")),
            (_, false) => more.push("format=sse".to_owned()),
        }
        if form == Form::Envelope {
            more.push("frame=envelope".to_owned());
        }
        match random.random_range(0..3) {
            0 => more.push("open=1".to_owned()),
            // As an `EventSource` asks.
            1 => headers.extend([("Sec-Fetch-Mode", "cors"), ("Cache-Control", "no-cache")]),
            _ => {}
        }
        match random.random_range(0..3) {
            0 => more.push("lag=disconnect".to_owned()),
            1 => more.push("lag=gap".to_owned()),
            _ => {}
        }
        match wanted.start {
            Start::Cursor(id) if random.random() => headers.push(("Last-Event-ID", id.as_str())),
            start => more.extend(parameter(start, random)),
        }
        let path = path_of(wanted, &more, random);
        let mut http = Http::connect(address, receive_bytes(random)).await?;
        let status = http.ask("GET", &path, &headers, "").await?;
        if status != 200 {
            return Err(unavailable(status, &http.whole().await?));
        }
        // The hub's first word: the stream is there.
        http.line().await?;
        Ok(Self { http, form })
    }

    pub(super) async fn next(&mut self) -> io::Result<Option<Item>> {
        if self.form == Form::Lines {
            return self.next_line().await;
        }
        let (mut id, mut event, mut data) = (None, None, Vec::new());
        loop {
            let Some(line) = self.http.line().await? else {
                return Ok(None);
            };
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "id" => id = Some(value),
                "event" => event = Some(value),
                "data" => data.push(value),
                "" if line.is_empty() => return Ok(Some(self.dispatched(id, event, &data))),
                // A comment.
                "" => {}
                "retry" => assert!(value.parse::<u32>().is_ok(), "{line}"),
                _ => panic!("no line of an event stream: {line:?}"),
            }
        }
    }

    fn dispatched(&self, id: Option<String>, event: Option<String>, data: &[String]) -> Item {
        let text = data.join("\n");
        let json = || serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{text:?}"));
        match (id, event.as_deref()) {
            (None, Some("tidings.gap")) => Item::Gap(json()),
            (None, Some("tidings.close")) => Item::Closed(reason(&json())),
            (Some(id), Some("tidings.open")) => {
                assert_eq!(json()["cursor"], id);
                Item::Cursor(id)
            }
            (Some(id), None) if data.is_empty() => Item::Cursor(id),
            (Some(id), _) if self.form == Form::Envelope => {
                let seen = Seen::of(&json());
                assert_eq!((seen.id.as_str(), &seen.event), (id.as_str(), &event));
                Item::Event(seen)
            }
            (Some(id), _) => Item::Event(Seen {
                id,
                topic: None,
                event,
                data: text,
            }),
            (None, _) => panic!("an event without an id: {event:?} {text:?}"),
        }
    }

    async fn next_line(&mut self) -> io::Result<Option<Item>> {
        loop {
            let Some(line) = self.http.line().await? else {
                return Ok(None);
            };
            if line.is_empty() {
                continue; // a keepalive
            }
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
            return Ok(Some(if let Some(gap) = line.get("gap") {
                Item::Gap(gap.clone())
            } else if let Some(close) = line.get("close") {
                Item::Closed(reason(close))
            } else if let Some(open) = line.get("open") {
                Item::Cursor(open["cursor"].as_str().expect("a cursor").to_owned())
            } else {
                Item::Event(Seen::of(&line))
            }));
        }
    }

    pub(super) fn leave(self, rudely: bool) {
        self.http.leave(rudely);
    }
}

fn reason(close: &Value) -> String {
    close["reason"].as_str().expect("a reason").to_owned()
}
