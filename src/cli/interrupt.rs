//! What Ctrl-C does: it stops the reply under way. At any other time, or pressed again, it ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::inference::CancelToken;

use super::error::INTERRUPTED;

/// The handler of Ctrl-C.
pub(super) struct Interrupt {
    /// Stops the reply under way.
    pub cancel: CancelToken,
    is_replying: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes Ctrl-C over, once for the process.
    pub(super) fn install() -> Self {
        let this = Self { cancel: CancelToken::default(), is_replying: Arc::default() };
        let (cancel, is_replying) = (this.cancel.clone(), this.is_replying.clone());
        let handler = move || {
            if is_replying.load(Ordering::SeqCst) && !cancel.is_cancelled() {
                cancel.cancel();
            } else {
                std::process::exit(INTERRUPTED.into());
            }
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            tracing::warn!("Ctrl-C will end the program at once: {error}");
        }
        this
    }

    /// Runs `reply`, which Ctrl-C stops; answers also whether it did.
    pub(super) fn during<T>(&self, reply: impl FnOnce() -> T) -> (T, bool) {
        self.cancel.reset();
        self.is_replying.store(true, Ordering::SeqCst);
        let answer = reply();
        self.is_replying.store(false, Ordering::SeqCst);
        (answer, self.cancel.is_cancelled())
    }
}
