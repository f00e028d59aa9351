//! An HTTP server that sends given answers and records the requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws::{ConnectOptions, Ec2};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::wire::options;

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Sends this status and body.
    Send(u16, String),
    /// Sends a success with this body.
    Bytes(Vec<u8>),
    /// Sends nothing and keeps the connection open.
    Hang,
    /// Closes the connection without an answer.
    HangUp,
    /// Announces this body, sends half of it and closes the connection.
    CutShort(String),
    /// Sends this status and a body without end.
    Endless(u16),
}

impl Answer {
    /// A success of `action` with `content` below the root element.
    pub(crate) fn ok(action: &str, content: &str) -> Self {
        Self::Send(200, format!("<{action}Response>{content}</{action}Response>"))
    }

    /// A refusal in EC2's form.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let ids = "<RequestID>1</RequestID>";
        Self::Send(status, format!("<Response><Errors>{error}</Errors>{ids}</Response>"))
    }

    pub(crate) fn throttled() -> Self {
        Self::error(503, "RequestLimitExceeded", "Request limit exceeded.")
    }
}

/// One request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method, path and version.
    pub(crate) line: String,
    /// `name: value`, names in lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Request {
    /// The parameters, one `Key=Value` a line, sorted, the action first.
    pub(crate) fn form(&self) -> String {
        let mut fields: Vec<(String, String)> =
            form_urlencoded::parse(self.body.as_bytes()).into_owned().collect();
        fields.retain(|(key, _)| key != "Version");
        fields.sort_by_key(|(key, _)| (key != "Action", key.clone()));
        let lines: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.join("\n")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.headers.iter().find_map(|header| header.strip_prefix(&prefix))
    }
}

/// It lives as long as the test's runtime.
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    seen: Vec<Request>,
    n_endless: usize,
}

impl Server {
    /// Starts to listen. The answers are given in turn, whatever is asked; the last one for good.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a free port");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let answers = answers.into_iter().collect();
        let script = Arc::new(Mutex::new(Script { answers, ..Script::default() }));
        tokio::spawn(accept(listener, Arc::clone(&script)));
        Self { address, script }
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> Ec2 {
        self.client_with(|_| {}).await
    }

    /// A client of it with other options than the usual ones.
    pub(crate) async fn client_with(&self, change: impl FnOnce(&mut ConnectOptions)) -> Ec2 {
        let mut options = options(&self.url());
        change(&mut options);
        Ec2::connect(options).await.expect("the endpoint is a URL")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many bytes of endless answers the client has taken so far.
    pub(crate) fn n_endless(&self) -> usize {
        lock(&self.script).n_endless
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        lock(&self.script).seen.clone()
    }
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, script: Arc<Mutex<Script>>) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(serve(connection, Arc::clone(&script)));
    }
}

/// One connection, to its end. Errors are the client's going away.
async fn serve(connection: TcpStream, script: Arc<Mutex<Script>>) {
    let mut connection = BufReader::new(connection);
    while let Some(request) = read(&mut connection).await {
        let answer = {
            let mut script = lock(&script);
            script.seen.push(request);
            let answer = script.answers.pop_front();
            let answer = answer.unwrap_or_else(|| Answer::error(400, "NotInTheScript", ""));
            if script.answers.is_empty() {
                script.answers.push_back(answer.clone());
            }
            answer
        };
        let text = |status, length, body: &[u8]| [head(status, length).as_bytes(), body].concat();
        let (text, goes_on) = match answer {
            Answer::Send(status, body) => (text(status, body.len(), body.as_bytes()), true),
            Answer::Bytes(body) => (text(200, body.len(), &body), true),
            Answer::CutShort(body) => {
                (text(200, body.len(), &body.as_bytes()[..body.len() / 2]), false)
            }
            Answer::Hang => return std::future::pending().await,
            Answer::HangUp => return,
            Answer::Endless(status) => {
                return send_for_ever(&mut connection, status, &script).await;
            }
        };
        if connection.write_all(&text).await.is_err() || !goes_on {
            return;
        }
    }
}

/// Sends until the client goes away.
async fn send_for_ever(connection: &mut BufReader<TcpStream>, status: u16, script: &Mutex<Script>) {
    const CHUNK: usize = 1 << 16;
    let start = head(status, 0).replace("content-length: 0", "transfer-encoding: chunked");
    let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &[b'x'; CHUNK], b"\r\n"].concat();
    let mut sent = connection.write_all(start.as_bytes()).await;
    while sent.is_ok() {
        sent = connection.write_all(&chunk).await;
        lock(script).n_endless += CHUNK;
    }
}

/// The hint keeps the SDK's back-off, else random within seconds, short.
fn head(status: u16, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} Because\r\ncontent-type: text/xml\r\nx-amz-retry-after: 1\r\n\
         x-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn read(connection: &mut BufReader<TcpStream>) -> Option<Request> {
    let line = read_line(connection).await?;
    let mut headers = Vec::new();
    loop {
        let header = read_line(connection).await?;
        match header.split_once(':') {
            Some((name, value)) => {
                headers.push(format!("{}: {}", name.to_ascii_lowercase(), value.trim()));
            }
            None => break,
        }
    }
    let mut request = Request { line, headers, body: String::new() };
    let length = request.header("content-length").map_or(Some(0), |text| text.parse().ok())?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

async fn read_line(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let length = connection.read_line(&mut line).await.ok()?;
    (length > 0).then(|| line.trim_end().to_owned())
}
