//! The metrics as a scraper gets them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::node::{TestNode, until};

/// A port that nobody has at this moment.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Sends a request and returns the whole answer, if there is one.
async fn ask(port: u16, request: &str) -> Option<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn scrape(port: u16) -> Option<String> {
    ask(port, "GET /metrics HTTP/1.1\r\nhost: node\r\n\r\n").await
}

async fn node_with_metrics() -> (TestNode, u16) {
    let mut node = TestNode::new();
    let port = free_port().await;
    node.config.metrics_port = Some(port);
    (node, port)
}

#[tokio::test]
async fn scrape_shows_pool_and_requests() {
    let (node, port) = node_with_metrics().await;
    let daemon = node.start().await;
    let client = node.client().await;
    client.until_warm(1).await;
    client.add("c1").await.unwrap();
    let text = until("the metrics", || scrape(port)).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
    for line in [
        "awscni_assigned_ip_addresses 1",
        "awscni_add_ip_req_count 1",
        "awscni_ec2api_req_count{fn=\"DescribeSubnets\"} 1",
        "tidepool_disagreements{kind=\"lost_address\"} 0",
        "tidepool_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let status = |request| async move { ask(port, request).await.unwrap() };
    let elsewhere = status("GET / HTTP/1.1\r\nhost: node\r\n\r\n").await;
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    let posted = status("POST /metrics HTTP/1.1\r\nhost: node\r\ncontent-length: 0\r\n\r\n").await;
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn taken_metrics_port_does_not_stop_the_daemon() {
    let (node, port) = node_with_metrics().await;
    let others = TcpListener::bind(("::", port)).await.unwrap();
    let daemon = node.start().await;
    node.client().await.add("c1").await.unwrap();
    drop(others);
    let text = until("the metrics once the port is free", || scrape(port)).await;
    assert!(text.contains("awscni_assigned_ip_addresses 1\n"), "{text}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn request_with_too_large_head_is_refused() {
    let (node, port) = node_with_metrics().await;
    let daemon = node.start().await;
    until("the metrics", || scrape(port)).await;
    let head = "a".repeat(64 * 1024);
    // The connection may be reset before all of the head is written.
    let answer = ask(port, &format!("GET /metrics HTTP/1.1\r\nx: {head}\r\n\r\n")).await;
    assert!(answer.is_none_or(|answer| answer.starts_with("HTTP/1.1 431")));
    daemon.stop().await.unwrap();
}

/// More callers than are answered at a time, who send nothing. The scrape drops one of them. The newest that
/// remain are still connected then, so the scrape has not waited for their timeouts.
#[tokio::test]
async fn silent_metrics_callers_do_not_delay_a_scrape() {
    let (node, port) = node_with_metrics().await;
    let daemon = node.start().await;
    until("the metrics", || scrape(port)).await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    node.client().await.add("c1").await.unwrap();
    let text = tokio::time::timeout(Duration::from_secs(60), scrape(port)).await.unwrap();
    assert!(text.is_some_and(|text| text.contains("awscni_add_ip_req_count 1\n")));
    let still_there = silent.last().unwrap().try_read(&mut [0]).unwrap_err();
    assert_eq!(still_there.kind(), std::io::ErrorKind::WouldBlock);
    drop(silent);
    daemon.stop().await.unwrap();
}
