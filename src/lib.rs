//! What a person touches: configuration, command line, client protocol, http.
pub mod resp;
