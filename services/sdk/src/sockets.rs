//! Listening sockets: inherited from the parent process (systemd's socket activation protocol), or bound here.

use std::env;
use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, OnceLock, PoisonError};

use listenfd::ListenFd;

/// The variable and the default of the gateway's address, if no socket is inherited.
const HTTP_ADDR: (&str, &str) = ("HTTP_ADDR", "0.0.0.0:8000");
/// The variable and the default of the health address, if no socket is inherited.
const HEALTH_ADDR: (&str, &str) = ("HEALTH_ADDR", "0.0.0.0:8080");

/// The socket that clients of the gateway connect to. Every call returns a handle of the same socket.
///
/// # Errors
/// If the address is in use.
pub fn http_listener() -> io::Result<TcpListener> {
    static LISTENER: Mutex<Option<TcpListener>> = Mutex::new(None);
    shared(&LISTENER, "http", HTTP_ADDR)
}

pub(crate) fn health_listener() -> io::Result<TcpListener> {
    static LISTENER: Mutex<Option<TcpListener>> = Mutex::new(None);
    shared(&LISTENER, "health", HEALTH_ADDR)
}

/// The address at which `healthcheck` reaches the task in the same container.
pub(crate) fn health_address() -> String {
    let address = env::var(HEALTH_ADDR.0).unwrap_or_else(|_| HEALTH_ADDR.1.to_owned());
    address.replace("0.0.0.0:", "127.0.0.1:")
}

fn shared(slot: &Mutex<Option<TcpListener>>, name: &str, (variable, default): (&str, &str)) -> io::Result<TcpListener> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(listener) = &*slot {
        return listener.try_clone();
    }
    let listener = match inherited(name)? {
        Some(listener) => listener,
        None => {
            let address = env::var(variable).unwrap_or_else(|_| default.to_owned());
            TcpListener::bind(&address)
                .map_err(|error| io::Error::new(error.kind(), format!("failed to listen on `{address}`: {error}")))?
        }
    };
    listener.set_nonblocking(true)?;
    slot.insert(listener).try_clone()
}

/// The inherited socket that `LISTEN_FDNAMES` calls `name`.
fn inherited(name: &str) -> io::Result<Option<TcpListener>> {
    static INHERITED: OnceLock<Mutex<ListenFd>> = OnceLock::new();
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let Some(index) = names.split(':').position(|known| known == name) else {
        return Ok(None);
    };
    let inherited = INHERITED.get_or_init(|| Mutex::new(ListenFd::from_env()));
    inherited.lock().unwrap_or_else(PoisonError::into_inner).take_tcp_listener(index)
}
