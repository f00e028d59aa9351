//! Small servers in network namespaces, and clients that say who has answered and whom the server has seen.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tests::process::PATIENCE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

/// Where servers listen. kube-proxy's recorded rules lead there.
pub(crate) const PORT: u16 = 8080;
/// The largest frame in bytes that passes in a VPC.
pub(crate) const JUMBO: usize = 9001;

/// How an end asks another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// How much is sent and sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Some bytes.
    Small,
    /// One frame of 9001 bytes, or with TCP many.
    Jumbo,
}

/// Who has answered, and which client it has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) by: String,
    pub(crate) seen: IpAddr,
}

/// Runs `act` in the network namespace at `netns`, in a thread of its own.
pub(crate) fn inside<T: Send>(netns: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(netns).with_context(|| format!("open {netns}"))?;
    let enter_and_act = || {
        let entered = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        entered.with_context(|| format!("enter {netns}"))?;
        act()
    };
    let done = std::thread::scope(|scope| scope.spawn(enter_and_act).join());
    done.map_err(|_| anyhow!("a thread in {netns} has panicked"))?
}

/// Answers TCP and UDP until it is dropped: its name, the client's address, and as many bytes as it has got.
#[derive(Debug)]
pub(crate) struct Server(Vec<JoinHandle<()>>);

impl Server {
    /// Starts one in the network namespace at `netns`.
    pub(crate) fn start(netns: &str, name: &str) -> Result<Self> {
        let (tcp, udp) = inside(netns, || {
            let tcp = TcpListener::bind(("::", PORT)).context("listen for TCP")?;
            let udp = UdpSocket::bind(("::", PORT)).context("listen for UDP")?;
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((tcp, udp))
        })?;
        let tcp = serve_tcp(tokio::net::TcpListener::from_std(tcp)?, name.to_owned());
        let udp = serve_udp(tokio::net::UdpSocket::from_std(udp)?, name.to_owned());
        Ok(Self(vec![tokio::spawn(tcp), tokio::spawn(udp)]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_tcp(listener: tokio::net::TcpListener, name: String) {
    while let Ok((mut stream, from)) = listener.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            let mut bytes = vec![];
            if stream.read_to_end(&mut bytes).await.is_ok() {
                let _ = stream.write_all(&answer(&name, from, bytes.len())).await;
            }
        });
    }
}

async fn serve_udp(socket: tokio::net::UdpSocket, name: String) {
    let mut bytes = vec![0; JUMBO];
    while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
        let _ = socket.send_to(&answer(&name, from, length), from).await;
    }
}

fn answer(name: &str, from: SocketAddr, length: usize) -> Vec<u8> {
    let mut text = format!("{name} {}\n", from.ip().to_canonical()).into_bytes();
    text.resize(length.max(text.len()), b'.');
    text
}

/// Asks the server at `to` from the network namespace at `netns`.
pub(crate) fn ask(netns: &str, protocol: Protocol, to: SocketAddr, size: Size) -> Result<Answer> {
    let asked = inside(netns, || match protocol {
        Protocol::Tcp => ask_tcp(to, size),
        Protocol::Udp => ask_udp(to, size),
    });
    asked.with_context(|| format!("ask {to} by {protocol:?}, {size:?}"))
}

fn ask_tcp(to: SocketAddr, size: Size) -> Result<Answer> {
    let length = match size {
        Size::Small => 64,
        Size::Jumbo => 10 * JUMBO,
    };
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![b'.'; length])?;
    stream.shutdown(Shutdown::Write)?;
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes)?;
    read(&bytes, length)
}

/// One packet, which no router may cut into fragments. The kernel counts those that it cuts itself.
fn ask_udp(to: SocketAddr, size: Size) -> Result<Answer> {
    let length = match size {
        Size::Small => 64,
        Size::Jumbo => JUMBO - headers(to.ip()),
    };
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&vec![b'.'; length])?;
    let mut bytes = vec![0; JUMBO];
    let length_of_answer = socket.recv(&mut bytes)?;
    read(&bytes[..length_of_answer], length)
}

/// Bytes of the headers of IP, and of UDP or an ICMP echo.
fn headers(address: IpAddr) -> usize {
    let ip = if address.is_ipv4() { 20 } else { 40 };
    ip + 8
}

fn read(bytes: &[u8], length: usize) -> Result<Answer> {
    ensure!(bytes.len() == length, "{} of {length} bytes came back", bytes.len());
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line)?;
    let (by, seen) = line.split_once(' ').with_context(|| format!("read {line:?}"))?;
    Ok(Answer { by: by.to_owned(), seen: seen.parse()? })
}

/// Sends one ICMP echo that may not be cut into fragments.
pub(crate) fn ping(netns: &str, to: IpAddr, size: Size) -> Result<()> {
    let length = match size {
        Size::Small => 56,
        Size::Jumbo => JUMBO - headers(to),
    };
    let arguments = ["-n", "-c1", "-Mdo", "-W60", "-s", &length.to_string(), &to.to_string()]
        .map(str::to_owned);
    inside(netns, || {
        let out = Command::new("ping").args(&arguments).output().context("run ping")?;
        let text = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success(), "ping {arguments:?}: {text}");
        Ok(())
    })
}

/// Asks the metadata service for a token, by HTTP.
pub(crate) fn ask_imds(netns: &str, to: IpAddr) -> Result<()> {
    let request = "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\nConnection: close\r\n\
                   X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0\r\n\r\n";
    inside(netns, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, 80), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200"), "no token: {text}");
        Ok(())
    })
}
