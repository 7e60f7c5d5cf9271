//! Uses of results, noted in memory until they are written in one go.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use buildyard_model::{Scope, StepKey};

use crate::UnixMillis;

/// More than these are not noted: a few seconds of a very busy farm. What is dropped merely looks less used.
const MAX_NOTED: usize = 50_000;

type Noted = HashMap<(StepKey, Scope), UnixMillis>;

#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<Noted>);

impl Uses {
    pub(super) fn note(&self, key: StepKey, scope: &Scope, now: UnixMillis) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = noted.len() >= MAX_NOTED;
        let at = (key, scope.clone());
        if let Some(last) = noted.get_mut(&at) {
            *last = now.max(*last);
        } else if !full {
            noted.insert(at, now);
        }
    }

    /// What was noted since the last call.
    pub(super) fn take(&self) -> Noted {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
