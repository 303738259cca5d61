//! The engines, and what they share.

pub mod data_folder;
pub mod folder;
mod http;
pub mod qdrant;
pub mod redis;
pub mod weaviate;
