//! Order and bounds.
