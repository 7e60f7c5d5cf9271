//! A registry in this process, for tests.
