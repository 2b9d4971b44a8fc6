//! Tests of unread counts.
