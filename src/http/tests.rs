//! Real sockets, a node that is not there.
