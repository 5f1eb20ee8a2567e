//! The framework part of the tenant API: front door, context, ids, pages, loaders, errors. It names no resource.

mod context;
pub mod door;
mod error;
mod id;
mod limits;
mod loader;
mod page;
mod scalars;

pub use context::{ContextExt, RequestContext};
pub use error::{UserError, expected};
pub use id::{Id, Kind, global_id, parse_global_id};
pub use loader::{Loaders, load, load_row};
pub use page::{Cursor, PageInput, Paged, Total, connection, page_by_id, with_fields};
pub use scalars::{ByteSize, DateTime, Url};
