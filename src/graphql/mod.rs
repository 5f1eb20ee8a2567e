//! The framework part of the tenant API: front door, context, ids, pages, loaders, errors. It names no resource.

mod asked;
mod context;
mod cursor;
mod documents;
pub mod door;
mod error;
mod id;
mod idempotency;
mod limits;
mod loader;
mod media_type;
mod omit;
mod page;
mod persisted;
mod scalars;
mod shape;
mod shelves;
mod subscription;
mod types;

pub use asked::Asked;
pub use context::{Calling, ContextExt, RequestContext};
pub use cursor::{Cursor, Key, Order, Place, SortKey};
pub use error::{ErrorCode, Quota, UserError, expected, refusal};
pub use id::{Id, Kind, global_id, global_id_of, parse_global_id};
pub use idempotency::IDEMPOTENCY_REPLAYED;
pub use limits::Costly;
pub use loader::{Batch, Loaders, load, load_row, load_row_at};
pub use media_type::{MEDIA_TYPES, MediaType};
pub use page::{
    OrderDirection, Owned, Page, PageArgs, Paged, Slice, Total, containing, escaped, few, rows,
    rows_of,
};
pub use scalars::{ByteSize, DateTime, Url};
pub use subscription::{Answers, follow, until_error};
