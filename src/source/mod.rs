//! Stub; being written.
