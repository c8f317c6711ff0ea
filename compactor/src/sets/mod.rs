//! Sets of totals and archive beside the base: what they are made of, which of them readers go by.
//!
//! - [`home`]: the definition of a set, kept with it; whether its totals have been loaded.
//! - [`switch`](mod@switch): which home readers go by, as a log of switches in the base's bucket.
//! - [`list`](mod@list): all homes, and how far each of them is.
//!
//! A set is made by [`rebuild`](crate::rebuild). Names and places: [`recount_schemas::set`].

pub mod home;
pub mod list;
pub mod switch;

pub use home::HomeError;
pub use list::{HomeLine, Sets, list};
pub use switch::{Current, SwitchError, current, switch};
