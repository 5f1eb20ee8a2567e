//! Global, opaque ids: the type's name and the row's UUID in base64url.

use async_graphql::registry::Registry;
use async_graphql::{ID, InputType, InputValueError, InputValueResult, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::borrow::Cow;
use std::marker::PhantomData;
use uuid::Uuid;

/// A type whose objects have global ids.
pub trait Kind: Send + Sync + 'static {
    /// The type's name in the schema.
    const NAME: &'static str;
}

/// The global id of a row.
pub fn global_id<K: Kind>(id: Uuid) -> ID {
    global_id_of(K::NAME, id)
}

/// The same, by the type's name.
pub fn global_id_of(name: &str, id: Uuid) -> ID {
    let bytes = [name.as_bytes(), id.as_bytes()].concat();
    ID(URL_SAFE_NO_PAD.encode(bytes))
}

/// The type's name and the row of a global id, if it is one.
pub fn parse_global_id(id: &str) -> Option<(String, Uuid)> {
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    let (name, uuid) = bytes.split_at_checked(bytes.len().checked_sub(16)?)?;
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| !name.is_empty())?;
    Some((name.to_owned(), Uuid::from_slice(uuid).ok()?))
}

/// The id of an object of type `K`, as an argument.
///
/// Text that is no id of `K` becomes an id that no row has: so a malformed, a wrong-type, a foreign and an absent id take
/// the same path and give the same answer.
#[derive(Debug)]
pub struct Id<K>(Uuid, PhantomData<K>);

impl<K> Id<K> {
    /// The row's id.
    pub fn uuid(&self) -> Uuid {
        self.0
    }
}

impl<K: Kind> InputType for Id<K> {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        <ID as InputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <ID as InputType>::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        match value.unwrap_or_default() {
            Value::String(text) => {
                let known = parse_global_id(&text).filter(|(name, _)| name == K::NAME);
                Ok(Self(known.map_or(Uuid::nil(), |(_, id)| id), PhantomData))
            }
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(global_id::<K>(self.0).0)
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Device;
    impl Kind for Device {
        const NAME: &'static str = "Device";
    }
    #[derive(Debug)]
    struct Media;
    impl Kind for Media {
        const NAME: &'static str = "Media";
    }

    #[test]
    fn only_an_id_of_the_type_names_a_row() {
        let row = Uuid::from_u128(7);
        let id = global_id::<Device>(row).0;
        let parse = |text: &str| {
            Id::<Device>::parse(Some(Value::String(text.to_owned())))
                .unwrap()
                .uuid()
        };
        assert_eq!(parse(&id), row);
        for other in [
            "",
            "x",
            "!!",
            &id[1..],
            &global_id::<Media>(row).0,
            &row.to_string(),
        ] {
            assert_eq!(parse(other), Uuid::nil(), "{other:?}");
        }
    }
}
