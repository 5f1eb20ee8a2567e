//! Places in a list, and cursors: what stands for a place outside.

use crate::clock::Timestamp;
use async_graphql::connection::CursorType;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike as _};
use std::borrow::Cow;
use std::fmt;
use uuid::Uuid;

/// What a list is sorted by, before the ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// Nothing: by id alone, which is the order that the rows were made in.
    Id,
    /// A text, by code point (the collation "C"): the same on every system. SQL for it, its table named.
    Text(&'static str),
    /// A time, with null before all others. SQL for it, its table named, as an index has it.
    Time(&'static str),
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// Of the list and what it is sorted by, in letters and dots; cursors carry it.
    pub name: &'static str,
    /// What it is sorted by.
    pub key: SortKey,
    /// The largest first.
    pub descending: bool,
}

/// The sort key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// None, where a list is sorted by id alone.
    Id,
    /// A text. Rust compares it as the collation "C" does.
    Text(String),
    /// A time; none is before all others.
    Time(Option<Timestamp>),
}

/// Where a row is in an order: no two rows share a place, and one that is gone leaves it as it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The row's sort key.
    pub key: Key,
    /// The row.
    pub id: Uuid,
}

impl Place {
    /// Of a row in a list that is sorted by id alone.
    pub fn by_id(id: Uuid) -> Self {
        Self { key: Key::Id, id }
    }

    /// The place right after it, or right before it: no row of another id can be between.
    pub(super) fn step(&self, up: bool) -> Self {
        let id = self.id.as_u128();
        let next = if up {
            id.saturating_add(1)
        } else {
            id.saturating_sub(1)
        };
        Self {
            key: self.key.clone(),
            id: Uuid::from_u128(next),
        }
    }
}

/// A place in a list, for clients: opaque, and good for that list in that order alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    list: Cow<'static, str>,
    descending: bool,
    /// Where.
    place: Place,
}

/// The text is no cursor of ours.
#[derive(Debug)]
pub struct NotACursor;

impl fmt::Display for NotACursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor")
    }
}

impl Cursor {
    /// Of a place in a list that has this order.
    pub fn new(order: Order, place: Place) -> Self {
        Self {
            list: Cow::Borrowed(order.name),
            descending: order.descending,
            place,
        }
    }

    /// Its place, if it is one in this order.
    pub fn place_in(self, order: Order) -> Option<Place> {
        let alike = matches!(
            (order.key, &self.place.key),
            (SortKey::Id, Key::Id)
                | (SortKey::Text(_), Key::Text(_))
                | (SortKey::Time(_), Key::Time(_))
        );
        (alike && self.list == order.name && self.descending == order.descending)
            .then_some(self.place)
    }
}

/// The list's name, `+` or `-` for the direction, the id, and the key: a letter for its kind, and its value.
impl CursorType for Cursor {
    type Error = NotACursor;

    fn decode_cursor(text: &str) -> Result<Self, NotACursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        decode(&bytes).ok_or(NotACursor)
    }

    fn encode_cursor(&self) -> String {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(self.list.as_bytes());
        bytes.push(if self.descending { b'-' } else { b'+' });
        bytes.extend_from_slice(self.place.id.as_bytes());
        match &self.place.key {
            Key::Id => bytes.push(b'i'),
            Key::Text(text) => {
                bytes.push(b's');
                bytes.extend_from_slice(text.as_bytes());
            }
            Key::Time(at) => {
                bytes.push(b't');
                bytes.extend(at.iter().flat_map(|at| at.timestamp_micros().to_be_bytes()));
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn decode(bytes: &[u8]) -> Option<Cursor> {
    let end = bytes.iter().position(|b| matches!(b, b'+' | b'-'))?;
    let (list, rest) = bytes.split_at(end);
    let (direction, rest) = rest.split_first()?;
    let (id, rest) = rest.split_at_checked(16)?;
    let (kind, value) = rest.split_first()?;
    let key = match (kind, value) {
        (b'i', []) => Key::Id,
        // No text of PostgreSQL's has a NUL.
        (b's', text) if !text.contains(&0) => Key::Text(std::str::from_utf8(text).ok()?.to_owned()),
        (b't', []) => Key::Time(None),
        (b't', micros) => Key::Time(Some(time(micros)?)),
        _ => return None,
    };
    Some(Cursor {
        list: Cow::Owned(std::str::from_utf8(list).ok()?.to_owned()),
        descending: *direction == b'-',
        place: Place {
            key,
            id: Uuid::from_slice(id).ok()?,
        },
    })
}

/// One that PostgreSQL can hold.
fn time(micros: &[u8]) -> Option<Timestamp> {
    let micros = i64::from_be_bytes(micros.try_into().ok()?);
    DateTime::from_timestamp_micros(micros).filter(|at| (1..=9999).contains(&at.year()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Order = Order {
        name: "devices.name",
        key: SortKey::Text("name"),
        descending: false,
    };

    fn place(key: Key) -> Place {
        Place {
            key,
            id: Uuid::from_u128(7),
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_list_and_order_alone() {
        let cursor = Cursor::new(NAME, place(Key::Text("Gate +1".to_owned()))).encode_cursor();
        let read = || Cursor::decode_cursor(&cursor).unwrap();
        assert_eq!(
            read().place_in(NAME),
            Some(place(Key::Text("Gate +1".to_owned())))
        );
        let others = [
            Order {
                name: "devices.seen",
                ..NAME
            },
            Order {
                descending: true,
                ..NAME
            },
            Order {
                key: SortKey::Id,
                ..NAME
            },
            Order {
                key: SortKey::Time("at"),
                ..NAME
            },
        ];
        for other in others {
            assert_eq!(read().place_in(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_read_is_what_was_written_and_nothing_else_is_read() {
        let now = DateTime::from_timestamp_micros(1_764_318_000_123_456);
        for key in [
            Key::Id,
            Key::Text(String::new()),
            Key::Time(None),
            Key::Time(now),
        ] {
            let cursor = Cursor::new(NAME, place(key));
            let text = cursor.encode_cursor();
            assert_eq!(Cursor::decode_cursor(&text).unwrap(), cursor);
            for cut in 0..text.len() {
                let read = Cursor::decode_cursor(&text[..cut]);
                assert!(read.is_err() || read.unwrap() != cursor, "{cut} of {text}");
            }
        }
        let raw = |key: &[u8]| URL_SAFE_NO_PAD.encode([b"a+".as_slice(), &[0; 16], key].concat());
        let micros = |at: i64| [b"t".as_slice(), &at.to_be_bytes()].concat();
        for odd in [
            raw(b"s\0"),
            raw(b"s\xff"),
            raw(b"ix"),
            raw(b"t1"),
            raw(b"x"),
            raw(b""),
            raw(&micros(i64::MAX)),
            raw(&micros(i64::MIN)),
            String::new(),
            "AAAA".to_owned(),
            "=".to_owned(),
        ] {
            assert!(Cursor::decode_cursor(&odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn nothing_is_between_a_place_and_the_next() {
        let at = place(Key::Id);
        assert!(at.step(false) < at && at < at.step(true));
        assert_eq!(at.step(true).step(false), at);
    }
}
