//! Idempotency keys, as every engine treats them: what makes two drafts the same, and what becomes of
//! the drafts of a batch. Knows no storage.

use super::{Batch, Outcome};
use crate::{
    cursor::Cursor,
    event::{Draft, IdempotencyKey},
    topic::Topic,
};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// What a key stands for: the first 16 bytes of the SHA-256 of a draft's data, event and own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; 16]);

impl Digest {
    pub(crate) fn of(draft: &Draft) -> Self {
        let mut hash = Sha256::new();
        // Each optional part says whether it is there and how long it is, so that no two triples share
        // their bytes.
        for part in [
            draft.event.as_ref().map(|name| name.as_str()),
            draft.own_id.as_ref().map(|id| id.as_str()),
        ] {
            hash.update([u8::from(part.is_some())]);
            hash.update((part.map_or(0, str::len) as u64).to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        hash.update(&draft.data);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(bytes)
    }
}

/// The event that a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) position: u64,
    pub(crate) digest: Digest,
}

impl Known {
    /// What becomes of a draft with the same key.
    pub(crate) fn outcome(&self, draft: &Draft, epoch: u64) -> Outcome {
        let position = self.position;
        match self.digest == Digest::of(draft) {
            true => Outcome::Duplicate(Cursor { epoch, position }),
            false => Outcome::Conflict,
        }
    }
}

/// Keys that a commit is about to add.
pub(crate) type NewKeys = HashMap<(Topic, IdempotencyKey), Known>;

/// What becomes of a batch.
pub(crate) struct Plan {
    /// One for each draft. `Stored` holds the position that the draft is to get.
    pub(crate) outcomes: Vec<Outcome>,
    /// Whether nothing may be stored, because one conflict keeps out all.
    pub(crate) refused: bool,
    /// The position of the last one that is to be stored.
    pub(crate) head: Option<u64>,
}

/// How the drafts of a batch are numbered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Positions {
    /// Those that are stored, one after the other, from the one after this on.
    After(u64),
    /// All, whether stored or not, from this on.
    From(u64),
}

/// Decides the outcome of each draft, without changing anything stored.
///
/// The keys to be added go to `new`, which stays as it is if the batch is refused or `known` fails. `known` looks a key
/// up in what is stored.
pub(crate) fn plan<E>(
    batch: &Batch,
    epoch: u64,
    positions: Positions,
    new: &mut NewKeys,
    mut known: impl FnMut(&Topic, &IdempotencyKey) -> Result<Option<Known>, E>,
) -> Result<Plan, E> {
    let at = |position| Cursor { epoch, position };
    let mut stored = 0;
    let mut head = None;
    let mut own = NewKeys::new();
    let mut outcomes = Vec::with_capacity(batch.drafts.len());
    let mut refused = false;
    for (index, draft) in batch.drafts.iter().enumerate() {
        let mut digest = None;
        if let Some(key) = &draft.key {
            let content = Digest::of(draft);
            let name = (draft.topic.clone(), key.clone());
            let first = match own.get(&name).or_else(|| new.get(&name)) {
                Some(first) => Some(*first),
                None => known(&draft.topic, key)?,
            };
            if let Some(first) = first {
                let same = first.digest == content;
                refused |= !same && batch.all_or_nothing;
                outcomes.push(if same {
                    Outcome::Duplicate(at(first.position))
                } else {
                    Outcome::Conflict
                });
                continue;
            }
            digest = Some((name, content));
        }
        stored += 1;
        let position = match positions {
            Positions::After(head) => head + stored,
            Positions::From(first) => first + index as u64,
        };
        head = Some(position);
        outcomes.push(Outcome::Stored(at(position)));
        if let Some((name, digest)) = digest {
            own.insert(name, Known { position, digest });
        }
    }
    if !refused {
        new.extend(own);
    }
    Ok(Plan {
        outcomes,
        refused,
        head: head.filter(|_| !refused),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(data: &str, event: Option<&str>, own_id: Option<&str>) -> Digest {
        use crate::event::{EventName, OwnId};
        Digest::of(&Draft {
            topic: Topic::parse("t").unwrap(),
            event: event.map(|name| EventName::parse(name).unwrap()),
            own_id: own_id.map(|id| OwnId::parse(id).unwrap()),
            retry_ms: None,
            data: data.to_owned().into(),
            key: None,
        })
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let all = [
            digest("ab", None, None),
            digest("b", Some("a"), None),
            digest("b", None, Some("a")),
            digest("", Some("ab"), None),
            digest("", Some("a"), Some("b")),
            digest("", None, Some("ab")),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(digest("x", Some("y"), None), digest("x", Some("y"), None));
    }
}
