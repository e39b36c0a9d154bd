//! What a person touches: configuration, command line, client protocol, http.

pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod logger;
pub mod pidfile;
pub mod processes;
pub mod resp;
pub mod serve;
