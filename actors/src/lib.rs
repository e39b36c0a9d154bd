//! The cluster runtime of SimpleDynamo: one node is one actor system.
pub mod bridge;
pub mod messages;
pub mod settings;
pub mod storage;
