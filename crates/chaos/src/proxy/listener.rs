//! The end of a leg where clients arrive.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use super::control::{Control, Toxic};
use super::http;
use super::kafka::Requests;
use super::postgres::Messages;
use super::pump::{self, Framing, Peer};

/// What is spoken on a leg.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Bytes,
    Http,
    Kafka,
    Postgres,
}

/// Backlog of connections not yet accepted.
const WAITING: u32 = 256;
/// Between the bytes of a client and the requests in them.
const PIPE: usize = 256 * 1024;

/// Serves the leg in the background, at this port or at any for 0; returns the port.
pub(super) fn start(
    runtime: &Runtime,
    port: u16,
    server: String,
    protocol: Protocol,
    control: Arc<Control>,
) -> Result<u16> {
    let _in_runtime = runtime.enter();
    // Bound and never listening: it keeps the port ours while the leg is cut, and so refuses connections.
    let reserved = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let address = reserved.local_addr()?;
    let listener = bound(address)?.listen(WAITING)?;
    runtime.spawn(async move {
        let _reserved = reserved;
        serve(listener, address, server, protocol, control).await;
    });
    Ok(address.port())
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    server: String,
    protocol: Protocol,
    control: Arc<Control>,
) {
    let mut watch = control.watch();
    let mut listener = Some(listener);
    loop {
        if watch.borrow_and_update().toxic == Toxic::Cut {
            listener = None;
        } else if listener.is_none() {
            // Nobody else can have taken the port, so this is a lack of file handles and passes.
            match bound(address).and_then(|socket| socket.listen(WAITING)) {
                Ok(again) => listener = Some(again),
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            }
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = watch.changed() => if changed.is_err() { return },
            accepted = accepted => if let Ok((client, _)) = accepted {
                tokio::spawn(connect(client, server.clone(), protocol, control.clone()));
            },
        }
    }
}

async fn connect(client: TcpStream, server: String, protocol: Protocol, control: Arc<Control>) {
    // Only a matter of speed.
    let _ = client.set_nodelay(true);
    if let Protocol::Http = protocol {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        tokio::spawn(http::serve(theirs, server, control.clone()));
        return pump::run(client, ours, control, Framing::None).await;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        // As near to a refusal as a connection can come that was accepted.
        return client.reset_when_dropped();
    };
    let _ = server.set_nodelay(true);
    let framing = match protocol {
        Protocol::Kafka => Framing::Kafka(Requests::default()),
        Protocol::Postgres => Framing::Postgres(Messages::default()),
        Protocol::Bytes | Protocol::Http => Framing::None,
    };
    pump::run(client, server, control, framing).await;
}
