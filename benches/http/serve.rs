//! What a contender's process does: it listens on a free port, says where, and ends when its stdin does.
//!
//! Every contender answers four requests: `POST /begin` makes a session of [`Shopper::example`] and sends its cookie,
//! `GET /untouched` answers without asking for the session, `GET /read` answers with the field `name`, and
//! `POST /write` adds one to `visits` and answers with the sum. `REDIS_URL` says where Redis is.
//!
//! [`Shopper::example`]: crate::shopper::Shopper::example

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use axum::Router;
use tokio::net::TcpListener;

/// What stands before the address on the line that says that the server is ready.
pub(crate) const READY: &str = "listening on ";

/// Serves for as long as stdin stays open, so that no server outlives the bench.
pub(crate) async fn serve(router: Router) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(listener.local_addr()?)?;
    axum::serve(listener, router).await
}

/// Says that the server is ready, and ends it with stdin.
pub(crate) fn say(address: SocketAddr) -> io::Result<()> {
    // Not tokio's stdin, which would keep a thread of the runtime; this one sleeps until the end.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}{address}")?;
    out.flush()
}
