//! catchup
