//! What the load does with a socket that is ready.

use super::{
    load::{Load, PUBLISHERS},
    publisher::Due,
    reader::{Reader, State, keep_tail},
    socket::read_some,
    stamp::PROBE,
};
use mio::Token;
use std::io;

impl Load {
    pub(super) fn serve_reader(&mut self, at: usize, readable: bool) {
        let reader = &mut self.readers[at];
        if reader.send().is_err() {
            return self.lose_reader(at);
        }
        if readable && self.read(at).is_err() {
            self.lose_reader(at);
        }
    }

    fn lose_reader(&mut self, at: usize) {
        let reader = &mut self.readers[at];
        if reader.stream.take().is_some() {
            reader.state = State::Lost;
            self.meter.lost_readers += 1;
        }
    }

    /// Reads what there is. An error is a stream that has ended.
    fn read(&mut self, at: usize) -> io::Result<()> {
        loop {
            let Some(stream) = &mut self.readers[at].stream else {
                return Ok(());
            };
            let Some(count) = read_some(stream, &mut self.buffer)? else {
                return Ok(());
            };
            let now = self.now_ns();
            self.look_through(at, count, now)?;
            let reader = &mut self.readers[at];
            if reader.opened() && reader.stalls {
                return reader.stall(self.poll.registry());
            }
            if reader.state != State::Open || !reader.wire.is_open() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            reader.send()?;
        }
    }

    fn look_through(&mut self, at: usize, count: usize, now: u64) -> io::Result<()> {
        let Self {
            readers,
            tracker,
            meter,
            marker,
            buffer,
            size,
            ..
        } = self;
        let Reader {
            wire,
            out,
            carry,
            tail,
            is_ready,
            topic,
            ..
        } = &mut readers[at];
        wire.feed(&buffer[..count], out, |piece| {
            if let Some(tail) = tail {
                keep_tail(tail, piece);
            }
            marker.scan(carry, piece, *size, |stamp| {
                *is_ready = true;
                if stamp.lane == PROBE || !tracker.note(at, *topic, stamp.lane, stamp.seq) {
                    return;
                }
                meter.last_delivery_ns = now;
                if stamp.time_ns >= meter.from_ns {
                    meter.latency.note_ns(now.saturating_sub(stamp.time_ns));
                }
            });
        })
    }

    pub(super) fn serve_publisher(&mut self, at: usize, readable: bool) {
        let flushed = self.publishers[at].flush();
        let ended = flushed.and_then(|()| {
            if readable {
                self.read_answer(at)
            } else {
                Ok(())
            }
        });
        if let Err(error) = ended {
            let publisher = &mut self.publishers[at];
            publisher.close();
            if let Some(flight) = publisher.flight.take() {
                self.refuse(u64::from(flight.events), &error.to_string());
                self.next_of(at);
            }
        }
    }

    fn read_answer(&mut self, at: usize) -> io::Result<()> {
        loop {
            let publisher = &mut self.publishers[at];
            let Some(stream) = publisher.stream() else {
                return Ok(());
            };
            let Some(count) = read_some(stream, &mut self.buffer)? else {
                return Ok(());
            };
            let fed = publisher.response.feed(&self.buffer[..count], |_| ());
            fed.map_err(io::Error::other)?;
            if publisher.response.is_done() {
                self.answered(at);
            }
        }
    }

    fn answered(&mut self, at: usize) {
        let publisher = &mut self.publishers[at];
        let status = publisher.response.status().unwrap_or(0);
        let Some(flight) = publisher.flight.take() else {
            return;
        };
        if publisher.response.closes() {
            publisher.close();
        }
        let events = u64::from(flight.events);
        if !(200..300).contains(&status) {
            self.refuse(events, &format!("status {status}"));
        } else if flight.due.lane != PROBE {
            self.meter.published += events;
            if flight.due.at_ns >= self.meter.from_ns {
                let taken = self.now_ns() - flight.due.at_ns;
                self.meter.answers.note_ns(taken);
            }
        }
        self.next_of(at);
    }

    pub(super) fn refuse(&mut self, events: u64, why: &str) {
        self.meter.refused += events;
        self.meter.refusal.get_or_insert_with(|| why.to_owned());
    }

    /// Sends a connection's next publish, if there is one.
    fn next_of(&mut self, at: usize) {
        let due = self.publishers[at]
            .backlog
            .pop_front()
            .or_else(|| self.next_saturated(at));
        if let Some(due) = due {
            self.publish(at, due);
        } else {
            self.schedule.idle.push(at);
        }
    }

    /// Has a connection publish, now or as soon as it has its answer.
    pub(super) fn publish(&mut self, at: usize, due: Due) {
        if self.publishers[at].flight.is_some() {
            self.publishers[at].backlog.push_back(due);
            return;
        }
        let publish = &self.publishes[due.topic as usize];
        let mut seq = 0;
        if let Some(sent) = self.sent.get_mut(due.lane as usize) {
            let events = publish.data_at.len() as u32;
            seq = *sent;
            *sent += events;
            self.expected += u64::from(events) * u64::from(self.audience[due.topic as usize]);
        }
        let publisher = &mut self.publishers[at];
        let mut result = Ok(());
        if publisher.stream().is_none() {
            let token = Token(PUBLISHERS + at);
            result = publisher.connect(&mut self.dialer, self.poll.registry(), token);
        }
        let result = result.and_then(|()| publisher.send(&self.marker, publish, due, seq));
        if let Err(error) = result {
            publisher.close();
            publisher.flight = None;
            self.refuse(publish.data_at.len() as u64, &error.to_string());
        }
    }
}
