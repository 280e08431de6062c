//! What a person, or another program, gets to see.

pub(crate) mod html;
pub(crate) mod json;
mod plot;
pub(crate) mod table;
