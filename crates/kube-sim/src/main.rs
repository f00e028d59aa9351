//! `kube-sim ADDRESS:PORT` serves, with `tls ADDRESS:PORT DIRECTORY` also by TLS; `kube-sim ADDRESS:PORT METHOD PATH [BODY]`
//! asks a server and prints its answer. For a test whose nodes are network namespaces.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use kube_sim::KubeSim;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = |text: &str| text.parse::<SocketAddr>();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [server] => serve(address(server)?, None),
        [server, "tls", secured, directory] => {
            serve(address(server)?, Some((address(secured)?, directory.into())))
        }
        [server, method, path] => ask(address(server)?, method, path, ""),
        [server, method, path, body] => ask(address(server)?, method, path, body),
        _ => {
            Err("usage: kube-sim ADDRESS:PORT [METHOD PATH [BODY] | tls ADDRESS:PORT DIRECTORY]"
                .into())
        }
    }
}

fn serve(address: SocketAddr, by_tls: Option<(SocketAddr, PathBuf)>) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let sim = KubeSim::default();
        sim.listen(address).await?;
        if let Some((address, directory)) = by_tls {
            sim.listen_by_tls(address, directory).await?;
        }
        std::future::pending().await
    })
}

fn ask(server: SocketAddr, method: &str, path: &str, body: &str) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(server)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head.to_owned().into());
    }
    std::io::stdout().write_all(body.as_bytes())?;
    Ok(())
}
