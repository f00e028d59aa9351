//! A node in a network namespace, pods in further ones, and the plugin, run as a runtime runs it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use datapath::netns::Netns;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::FakeIpamd;

/// When a test counts as hung. Below the plugin's default timeout of 75 s, so that a call with a shorter one that
/// ignores it counts too.
pub(crate) const HANG: Duration = Duration::from_secs(70);

/// A network namespace with a unique name, removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tp-cni-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Self(name)
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// Runs `ip` inside; `''` stands for an empty argument.
    pub(crate) fn ip(&self, args: &str) -> String {
        let mut all = vec!["-n", &self.0];
        all.extend(args.split_whitespace().map(|arg| if arg == "''" { "" } else { arg }));
        run("ip", &all)
    }

    /// All that the plugin can change, as `ip` prints it. It leaves out what the kernel changes by itself
    /// after a link has come up.
    pub(crate) fn dump(&self) -> String {
        let all = ["-o link", "-o addr", "rule", "-6 rule", "route show table all", "neigh"]
            .map(|args| self.ip(args))
            .join("---\n");
        let lines = all.lines().filter(|l| !l.contains("fe80::") && !l.contains("ff00::/8"));
        let words = lines.flat_map(|line| line.split_inclusive([' ', ',', '<', '>']).chain(["\n"]));
        words.filter(|word| !SETTLING.iter().any(|settling| word.starts_with(settling))).collect()
    }
}

/// The words by which `ip` shows that a link is not quite up yet.
const SETTLING: [&str; 5] = ["NO-CARRIER", "LOWER_UP", "UP", "DOWN", "tentative"];

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failure here must not hide why the test failed.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error} (these tests need root)");
    String::from_utf8(output.stdout).unwrap()
}

/// A node with a daemon.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) host: Namespace,
    pub(crate) folder: TempDir,
    pub(crate) ipamd: Option<FakeIpamd>,
}

impl Node {
    /// `None` if tests that need root shall be skipped.
    pub(crate) fn new() -> Option<Node> {
        if std::env::var_os("TIDEPOOL_SKIP_ROOT_TESTS").is_some_and(|value| value == "1") {
            return None;
        }
        let folder = TempDir::new().unwrap();
        let host = Namespace::new();
        host.ip("link set lo up");
        let ipamd = Some(FakeIpamd::start(&folder.path().join("ipamd.sock")));
        Some(Node { host, folder, ipamd })
    }

    /// The executable under test: the one built with the tests, or the one in `TIDEPOOL_AWS_CNI`.
    pub(crate) fn program() -> PathBuf {
        std::env::var_os("TIDEPOOL_AWS_CNI")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_aws-cni")), PathBuf::from)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("ipamd.sock")
    }

    pub(crate) fn ipamd(&self) -> &FakeIpamd {
        self.ipamd.as_ref().expect("the test has not stopped the daemon")
    }

    /// Restarts the daemon with its record.
    pub(crate) fn restart_ipamd(&mut self) {
        std::fs::remove_file(self.socket()).unwrap();
        let ipamd = self.ipamd.take().unwrap();
        self.ipamd = Some(ipamd.restart(&self.socket()));
    }

    pub(crate) fn stop_ipamd(&mut self) {
        self.ipamd = None;
        std::fs::remove_file(self.socket()).unwrap();
    }

    /// The names of the DELs on disk.
    pub(crate) fn pending(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(proto::pending::directory(&self.socket())) else {
            return Vec::new();
        };
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub(crate) fn call(&self, verb: &str) -> Call<'_> {
        let conf = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "aws-cni", "mtu": "9001",
            "ipamdSocket": self.socket(), "ipamdTimeout": "60s",
        });
        let program = Node::program();
        let mut call = Call { node: self, program, vars: Vec::new(), conf };
        call.set("CNI_COMMAND", verb);
        call
    }

    pub(crate) fn pod(&self, container: &str, name: &str) -> Pod {
        Pod { container: container.to_owned(), name: name.to_owned(), netns: Namespace::new() }
    }

    /// A call for a pod's `eth0`.
    pub(crate) fn pod_call(&self, verb: &str, pod: &Pod) -> Call<'_> {
        let mut call = self.call(verb);
        call.set("CNI_CONTAINERID", &pod.container);
        call.set("CNI_NETNS", pod.netns.path().to_str().unwrap());
        call.set("CNI_IFNAME", "eth0");
        call.set("CNI_PATH", "/opt/cni/bin");
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME={}", pod.name);
        call.set("CNI_ARGS", &args);
        call
    }

    /// The result of an ADD that must succeed.
    pub(crate) fn add(&self, pod: &Pod) -> Value {
        self.pod_call("ADD", pod).run().result()
    }

    /// A DEL that must succeed, with the namespace and without a previous result.
    pub(crate) fn del(&self, pod: &Pod) {
        self.pod_call("DEL", pod).run().silent();
    }
}

/// A sandbox.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) netns: Namespace,
}

impl Pod {
    /// The host's end.
    pub(crate) fn host_name(&self) -> String {
        let name = datapath::host_veth_name("eni", "ns", &self.name, &self.container, None);
        name.unwrap().to_string()
    }
}

/// A call of the plugin.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    node: &'a Node,
    program: PathBuf,
    vars: Vec<(String, String)>,
    pub(crate) conf: Value,
}

impl Call<'_> {
    /// Sets a variable, in place of an earlier value.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.vars.retain(|(other, _)| other != key);
        self.vars.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts the plugin by another name.
    pub(crate) fn program(&mut self, path: PathBuf) {
        self.program = path;
    }

    /// Sets a member of the configuration.
    pub(crate) fn conf(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.conf[key] = value.into();
        self
    }

    pub(crate) fn run(&self) -> Answer {
        self.run_with(self.conf.to_string().as_bytes())
    }

    pub(crate) fn run_with(&self, stdin: &[u8]) -> Answer {
        let start = Instant::now();
        let child = self.spawn(stdin);
        let pid = child.id().to_string();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || end.send(child.wait_with_output()));
        let output = ended.recv_timeout(HANG).unwrap_or_else(|_| {
            run("kill", &["-KILL", &pid]);
            panic!("{:?} hangs: {:?}", self.vars, ended.recv())
        });
        Answer { output: output.unwrap(), took: start.elapsed() }
    }

    /// Starts the plugin and writes its stdin.
    pub(crate) fn spawn(&self, stdin: &[u8]) -> Child {
        let mut child = self.start();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child
    }

    /// Starts the plugin in the node's namespace, with the call's variables alone and with stdin open.
    pub(crate) fn start(&self) -> Child {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.vars.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let host = Netns::open(&self.node.host.path()).unwrap();
        host.run(|| command.spawn()).unwrap().unwrap()
    }
}

/// The outcome of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) output: Output,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.output.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> &str {
        std::str::from_utf8(&self.output.stderr).unwrap()
    }

    /// The one JSON document of a call that must succeed.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert!(self.output.status.success(), "{self:?}");
        serde_json::from_str(self.stdout()).unwrap()
    }

    /// Asserts success without output.
    #[track_caller]
    pub(crate) fn silent(&self) {
        assert!(self.output.status.success(), "{self:?}");
        assert_eq!(self.stdout(), "", "{self:?}");
    }

    /// The code and the text (message and details) of a call that must fail. The answer must be one
    /// JSON object as the protocol has it.
    #[track_caller]
    pub(crate) fn error(&self) -> (u64, String) {
        assert_eq!(self.output.status.code(), Some(1), "{self:?}");
        let document: Value = serde_json::from_str(self.stdout()).unwrap();
        assert!(document["cniVersion"].is_string(), "{document}");
        let details = document["details"].as_str().unwrap_or_default();
        let text = format!("{}; {details}", document["msg"].as_str().unwrap());
        (document["code"].as_u64().unwrap(), text)
    }

    #[track_caller]
    pub(crate) fn fails(&self, code: u64, part: &str) {
        let (found, text) = self.error();
        assert!(found == code && text.contains(part), "{found} {text:?} is not {code} …{part}…");
    }
}
