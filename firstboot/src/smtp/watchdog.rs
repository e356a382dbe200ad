//! The end of a connection at a moment, whatever it is at.
//!
//! A socket's own limits are for each read and write; one that gives a byte now and then keeps within them for ever.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Shuts a connection down when its time is up.
pub(super) struct Watchdog {
    ended: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    /// Watches over a connection until [`Watchdog::end`].
    pub fn new(stream: &TcpStream, deadline: Instant) -> io::Result<Watchdog> {
        let stream = stream.try_clone()?;
        let (ended, end) = channel::<()>();
        let thread = std::thread::Builder::new().spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            // The sender is dropped, never used: only a timeout means that the dialogue goes on.
            let is_late = end.recv_timeout(left) == Err(RecvTimeoutError::Timeout);
            if is_late {
                // One that is closed already needs none.
                let _ = stream.shutdown(Shutdown::Both);
            }
            is_late
        })?;
        Ok(Watchdog { ended, thread })
    }

    /// Stops watching; whether the connection was shut down.
    pub fn end(self) -> bool {
        drop(self.ended);
        self.thread.join().unwrap_or(false)
    }
}
