//! Which of the two types of GraphQL over HTTP (§6.3) an answer is sent in.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderValue};

/// What an answer is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`: refused documents are a 200.
    Json,
    /// `application/graphql-response+json`: they are a 400.
    GraphqlResponse,
}

/// Both, for messages.
pub const MEDIA_TYPES: &str = "application/graphql-response+json or application/json";

impl MediaType {
    /// As it stands in a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::GraphqlResponse => "application/graphql-response+json",
        }
    }

    /// What the client likes best (RFC 9110 §12.5.1); none if it accepts neither.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::best(headers.get_all(ACCEPT).iter())
    }

    /// The same for an error, which is sent whatever is accepted.
    pub fn for_error(accepted: Option<&HeaderValue>) -> Self {
        Self::best(accepted.into_iter()).unwrap_or(Self::Json)
    }

    fn best<'a>(accepted: impl Iterator<Item = &'a HeaderValue>) -> Option<Self> {
        let (mut json, mut modern) = (Preference::default(), Preference::default());
        let mut any = false;
        for value in accepted {
            any = true;
            // What most clients send.
            if value == Self::Json.as_str() || value == "*/*" {
                json.take(3, 1000);
                continue;
            }
            let text = value.to_str().unwrap_or_default();
            for range in text.split(',') {
                let (kind, quality) = read(range);
                for (of, preference) in [
                    (Self::Json, &mut json),
                    (Self::GraphqlResponse, &mut modern),
                ] {
                    preference.take(closeness(&kind, of), quality);
                }
            }
        }
        if !any {
            return Some(Self::Json);
        }
        // Named by name it wins a draw; whoever takes anything gets plain JSON.
        if modern.quality > json.quality
            || (modern.closeness == 3 && modern.quality == json.quality)
        {
            return (modern.quality > 0).then_some(Self::GraphqlResponse);
        }
        (json.quality > 0).then_some(Self::Json)
    }
}

/// How much a type is liked, by the range that fits it best.
#[derive(Clone, Copy, Debug, Default)]
struct Preference {
    closeness: u8,
    quality: u16,
}

impl Preference {
    fn take(&mut self, closeness: u8, quality: u16) {
        if closeness > self.closeness {
            *self = Self { closeness, quality };
        }
    }
}

/// How closely a range names a type: by its name, by its kind, at all, not.
fn closeness(range: &str, of: MediaType) -> u8 {
    match range {
        "*/*" => 1,
        "application/*" => 2,
        name if name == of.as_str() => 3,
        _ => 0,
    }
}

/// A range, and how much it is liked in thousandths. One that asks for another charset than ours is not liked.
fn read(range: &str) -> (String, u16) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut quality = 1000;
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("q") {
            quality = quality.min(thousandths(value));
        } else if name.trim().eq_ignore_ascii_case("charset")
            && !value.eq_ignore_ascii_case("utf-8")
        {
            quality = 0;
        }
    }
    (kind, quality)
}

/// `0.8` is 800; what is no number counts for nothing.
fn thousandths(text: &str) -> u16 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    match (whole, digits) {
        ("1", true) => 1000,
        ("0", true) => format!("{part:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_gets_what_it_likes_best() {
        let (json, modern) = (Some(MediaType::Json), Some(MediaType::GraphqlResponse));
        for (accept, wanted) in [
            ("", None),
            ("*/*", json),
            ("application/*", json),
            ("text/html, */*;q=0.1", json),
            ("application/json", json),
            ("APPLICATION/JSON ; charset=UTF-8", json),
            ("application/graphql-response+json", modern),
            (
                "application/graphql-response+json, application/json;q=0.9",
                modern,
            ),
            ("application/graphql-response+json,application/json", modern),
            (
                "application/json, application/graphql-response+json",
                modern,
            ),
            (
                "application/json, application/graphql-response+json;q=0.5",
                json,
            ),
            ("application/graphql-response+json;q=0, */*", json),
            ("application/json;q=0, */*", modern),
            ("application/json;q=0.2, */*;q=0.1", json),
            (
                "application/graphql-response+json;q=0.001, text/html",
                modern,
            ),
            ("application/json;q=0", None),
            ("*/*;q=0", None),
            ("application/json;q=2", None),
            ("application/json;q=x", None),
            ("application/json;charset=iso-8859-1", None),
            ("text/html", None),
            ("application/xml, text/event-stream", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(MediaType::of(&headers), wanted, "{accept}");
        }
        assert_eq!(MediaType::of(&HeaderMap::new()), json);
    }
}
