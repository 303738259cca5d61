//! The engines, each behind [`crate::engine::Engine`].

pub mod weaviate;
