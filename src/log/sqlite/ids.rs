//! Maps by the numbers of topics, which the log gives out itself: they need no hash that resists an attack.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

pub(super) type IdMap<T> = HashMap<i64, T, BuildHasherDefault<IdHasher>>;

/// One multiplication, which spreads numbers that follow each other.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_i64(&mut self, id: i64) {
        self.0 = id.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_i64(i64::from(*byte) ^ self.0.cast_signed());
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
