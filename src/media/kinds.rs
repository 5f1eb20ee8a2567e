//! The types that are taken, told by their bytes.

/// One type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) mime: &'static str,
    /// Extension of its keys.
    pub(super) ext: &'static str,
    /// Whether a browser may show it in place. What could run as a page is always saved.
    pub(super) inline: bool,
}

const KINDS: [Kind; 12] = [
    Kind {
        mime: "image/jpeg",
        ext: "jpg",
        inline: true,
    },
    Kind {
        mime: "image/png",
        ext: "png",
        inline: true,
    },
    Kind {
        mime: "image/gif",
        ext: "gif",
        inline: true,
    },
    Kind {
        mime: "image/webp",
        ext: "webp",
        inline: true,
    },
    Kind {
        mime: "application/pdf",
        ext: "pdf",
        inline: true,
    },
    Kind {
        mime: "video/mp4",
        ext: "mp4",
        inline: true,
    },
    Kind {
        mime: "audio/mpeg",
        ext: "mp3",
        inline: true,
    },
    Kind {
        mime: "application/zip",
        ext: "zip",
        inline: false,
    },
    Kind {
        mime: "text/plain",
        ext: "txt",
        inline: false,
    },
    Kind {
        mime: "text/csv",
        ext: "csv",
        inline: false,
    },
    Kind {
        mime: "application/json",
        ext: "json",
        inline: false,
    },
    Kind {
        mime: "application/x-ndjson",
        ext: "jsonl",
        inline: false,
    },
];

/// The types, for people.
pub(super) const ALLOWED: &str = "image/jpeg, image/png, image/gif, image/webp, application/pdf, video/mp4, audio/mpeg, \
    application/zip, text/plain, text/csv, application/json or application/x-ndjson";

/// Bytes that are enough to tell the type.
pub(super) const HEAD: usize = 8192;

pub(super) fn by_mime(mime: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.mime.eq_ignore_ascii_case(mime))
}

pub(super) fn by_ext(ext: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.ext == ext)
}

/// The type of bytes by their head. Text has no mark of its own: it is what was declared, if it can be text at all.
pub(super) fn sniff(head: &[u8], declared: &str) -> Option<&'static Kind> {
    if let Some(found) = infer::get(head) {
        return by_mime(found.mime_type());
    }
    let is_text = !head.contains(&0) && valid_utf8(head);
    by_mime(declared).filter(|kind| is_text && is_textual(kind))
}

fn is_textual(kind: &Kind) -> bool {
    kind.mime.starts_with("text/") || matches!(kind.ext, "json" | "jsonl")
}

/// Valid, but for a character that the cut may have split.
fn valid_utf8(head: &[u8]) -> bool {
    match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none(),
    }
}

/// RFC 6266, with the name in RFC 5987's encoding alone.
pub(super) fn disposition(kind: &Kind, filename: &str) -> String {
    let place = if kind.inline { "inline" } else { "attachment" };
    let mut name = String::new();
    for byte in filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.push_str(&crate::secret::hex(&[byte]).to_ascii_uppercase());
        }
    }
    format!("{place}; filename*=UTF-8''{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believes_the_bytes() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        assert_eq!(sniff(png, "image/jpeg").unwrap().ext, "png");
        assert_eq!(sniff(b"a,b\n1,2\n", "text/csv").unwrap().ext, "csv");
        let lines = b"{\"a\":1}\n{\"a\":2}\n";
        assert_eq!(sniff(lines, "application/x-ndjson").unwrap().ext, "jsonl");
        assert_eq!(sniff(b"a,b\n", "image/png"), None);
        assert_eq!(sniff(b"\0\x01\x02", "text/plain"), None);
        assert_eq!(sniff(b"<!DOCTYPE html><script>", "text/plain"), None);
        assert_eq!(sniff(b"\x7fELF\x02\x01\x01", "application/zip"), None);
    }
}
