//! Pages of JSON, one request after the other on one connection: polled, or waited for.

use super::{
    Item, Seen, Start, Wanted, http::Http, parameter, path_of, receive_bytes, unavailable,
};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::Value;
use std::{collections::VecDeque, io, net::SocketAddr};

pub(in crate::transports) struct Pages {
    http: Http,
    topics: Vec<String>,
    waits: bool,
    limit: usize,
    /// Of the last page, not given yet.
    items: VecDeque<Item>,
    /// Where the next page begins.
    cursor: String,
    /// Whether the last page said that there is more.
    more: bool,
    random: StdRng,
}

impl Pages {
    pub(super) async fn open(
        address: SocketAddr,
        wanted: &Wanted<'_>,
        waits: bool,
        random: &mut StdRng,
    ) -> io::Result<Self> {
        let mut this = Self {
            http: Http::connect(address, receive_bytes(random)).await?,
            topics: wanted.topics.to_vec(),
            waits,
            limit: random.random_range(1..40),
            items: VecDeque::new(),
            cursor: String::new(),
            more: false,
            random: rand::SeedableRng::seed_from_u64(random.random()),
        };
        // At once, so that a live start is told.
        let start = match wanted.start {
            Start::Live => Some("tail=0".to_owned()),
            start => parameter(start, random),
        };
        this.turn(start, 0).await?;
        Ok(this)
    }

    pub(super) async fn next(&mut self) -> io::Result<Option<Item>> {
        if self.items.is_empty() && (self.waits || self.more) {
            let after = parameter(&Start::Cursor(self.cursor.clone()), &mut self.random);
            self.turn(after, 1).await?;
        }
        Ok(self.items.pop_front())
    }

    /// Gets the next page.
    async fn turn(&mut self, start: Option<String>, wait: u8) -> io::Result<()> {
        let mut more = vec![format!("limit={}", self.limit)];
        more.extend(start);
        let mut headers = Vec::new();
        match self.random.random() {
            true => headers.push(("Accept", "application/json")),
            false => more.push("format=json".to_owned()),
        }
        if self.waits && wait > 0 {
            match self.random.random() {
                true => headers.push(("Prefer", "wait=1")),
                false => more.push(format!("wait={wait}")),
            }
        }
        let wanted = Wanted {
            topics: &self.topics,
            start: &Start::Live,
        };
        let path = path_of(&wanted, &more, &mut self.random);
        let status = self.http.ask("GET", &path, &headers, "").await?;
        let answer = self.http.whole().await?;
        if status != 200 {
            return Err(unavailable(status, &answer));
        }
        let page: Value = serde_json::from_str(&answer).expect("a page");
        if !page["gap"].is_null() {
            self.items.push_back(Item::Gap(page["gap"].clone()));
        }
        let events = page["events"].as_array().expect("events");
        assert!(events.len() <= self.limit, "{} events", events.len());
        let events = events.iter().map(|event| Item::Event(Seen::of(event)));
        self.items.extend(events);
        self.more = page["more"].as_bool().expect("whether there is more");
        page["cursor"]
            .as_str()
            .expect("a cursor")
            .clone_into(&mut self.cursor);
        self.items.push_back(Item::Cursor(self.cursor.clone()));
        Ok(())
    }

    pub(super) fn leave(self, rudely: bool) {
        self.http.leave(rudely);
    }
}
