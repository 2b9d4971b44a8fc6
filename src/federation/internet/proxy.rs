//! Asking a proxy for a connection, where the way out leads through one.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::places::Target;

/// The longest answer of a proxy, in bytes.
const MAX_ANSWER: usize = 8 << 10;

/// Has a proxy connect to a target; what is written from then on goes there.
///
/// # Errors
///
/// The proxy does not, or says what nobody understands.
pub(super) async fn tunnel(stream: &mut TcpStream, to: &Target) -> Result<(), String> {
    let Target { host, port } = to;
    let ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    let broken = |fault: std::io::Error| format!("the proxy does not answer: {fault}");
    stream.write_all(ask.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head belongs to whoever is behind the proxy.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err("the proxy says too much".to_owned());
        }
        answer.push(stream.read_u8().await.map_err(broken)?);
    }
    let line = answer.split(|byte| *byte == b'\r').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("HTTP/1.1" | "HTTP/1.0"), Some("200")) => Ok(()),
        _ => Err(format!("the proxy refuses: {line:.100}")),
    }
}
