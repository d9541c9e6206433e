//! Numbers for keys, in the order in which the keys come: a hash table of small integers.
//!
//! One place in memory per look-up, where the standard map has two; for keys that need no protection against crafted
//! collisions. Nothing depends on a random seed.

/// A key: an integer that is cheap to spread over a table.
pub trait Spread: Copy + Eq + Default {
    /// Bits of which the upper ones depend on all of the key.
    fn spread(self) -> u64;
}

impl Spread for u64 {
    fn spread(self) -> u64 {
        (self ^ (self >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Spread for u128 {
    fn spread(self) -> u64 {
        (self as u64 ^ ((self >> 64) as u64).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(32)).spread()
    }
}

/// What stands in a free place in a number's stead; no key gets it.
const FREE: u32 = u32::MAX;

/// The numbers of keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers<K> {
    /// None, or a power of two of them, at most half in use.
    places: Vec<(K, u32)>,
    used: usize,
}

impl<K: Spread> Numbers<K> {
    /// The number of `key`: `next` if it has none yet. `next` is below 2³² − 1.
    pub(crate) fn number(&mut self, key: K, next: u32) -> u32 {
        if 2 * self.used >= self.places.len() {
            self.grow();
        }
        let at = self.place(key);
        let (known, number) = &mut self.places[at];
        if *number == FREE {
            (*known, *number) = (key, next);
            self.used += 1;
        }
        *number
    }

    /// The number of `key`, if it has one.
    pub(crate) fn get(&self, key: K) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let number = self.places[self.place(key)].1;
        (number != FREE).then_some(number)
    }

    /// Where `key` is, or would be; there are free places.
    fn place(&self, key: K) -> usize {
        let last = self.places.len() - 1;
        let mut at = (key.spread() >> (64 - self.places.len().trailing_zeros())) as usize;
        while self.places[at].1 != FREE && self.places[at].0 != key {
            at = (at + 1) & last;
        }
        at
    }

    fn grow(&mut self) {
        let size = (4 * self.places.len()).max(32);
        let old = std::mem::replace(&mut self.places, vec![(K::default(), FREE); size]);
        for (key, number) in old {
            if number != FREE {
                let at = self.place(key);
                self.places[at] = (key, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn same_as_the_standard_map<K: Spread + std::hash::Hash + std::fmt::Debug>(key: impl Fn(u64) -> K) {
        let (mut numbers, mut expected) = (Numbers::default(), HashMap::new());
        assert_eq!(numbers.get(key(0)), None);
        for step in 0..20_000u64 {
            let key = key(step * step % 7919);
            let next = expected.len() as u32;
            assert_eq!(numbers.number(key, next), *expected.entry(key).or_insert(next));
        }
        expected.iter().for_each(|(key, number)| assert_eq!(numbers.get(*key), Some(*number)));
        assert_eq!(numbers.get(key(7919)), None);
    }

    #[test]
    fn numbers_by_first_appearance() {
        same_as_the_standard_map(|n| n);
        same_as_the_standard_map(|n| n << 48);
        same_as_the_standard_map(|n| u128::from(n) << 96 | 5);
        same_as_the_standard_map(u128::from);
    }
}
