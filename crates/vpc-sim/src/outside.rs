//! A server in the outside that tells each client the address that it has seen.
//!
//! It answers each TCP connection and each UDP datagram with the client's address and port, as one
//! line: `203.0.113.10 40312`. So a test sees what a gateway has made of a source address.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};

/// The port of the server, beside EC2's in the fabric.
pub const PORT: u16 = 8774;

/// Answers clients. Ends only when it is dropped.
pub(crate) async fn serve(tcp: std::net::TcpListener, udp: std::net::UdpSocket) {
    let sockets = TcpListener::from_std(tcp).and_then(|tcp| Ok((tcp, UdpSocket::from_std(udp)?)));
    match sockets {
        Ok((tcp, udp)) => {
            tokio::join!(answer_connections(tcp), answer_datagrams(udp));
        }
        Err(error) => tracing::error!(%error, "the server in the outside cannot start"),
    }
}

async fn answer_connections(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((mut stream, peer)) => {
                // A client that is gone needs no answer. The text fits any send buffer, so no
                // client delays the others.
                let _gone = stream.write_all(line(peer).as_bytes()).await;
            }
            Err(error) => failed(&error).await,
        }
    }
}

async fn answer_datagrams(socket: UdpSocket) {
    let mut request = [0; 64];
    loop {
        match socket.recv_from(&mut request).await {
            Ok((_, peer)) => {
                let _gone = socket.send_to(line(peer).as_bytes(), peer).await;
            }
            Err(error) => failed(&error).await,
        }
    }
}

/// An error such as too many open files passes. Meanwhile others must run.
async fn failed(error: &io::Error) {
    tracing::warn!(%error, "the server in the outside has lost a client");
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
}

fn line(peer: SocketAddr) -> String {
    format!("{} {}\n", peer.ip().to_canonical(), peer.port())
}
