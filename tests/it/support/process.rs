//! The binaries, run as a user would run them.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The path of one of the workspace's binaries, beside this test's own.
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("a running test has a path");
    while dir.file_name().is_none_or(|name| name != "deps") {
        assert!(dir.pop(), "the test binary is not below a deps folder");
    }
    dir.pop();
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins` first, or tests/run", path.display());
    path
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// `recount-local serve`, as a process of its own.
pub struct Serve {
    child: Child,
    /// The port that it serves.
    pub port: u16,
}

impl Serve {
    /// Starts it on `dir` and waits until it says that it is ready.
    pub fn start(dir: &Path, port: u16, definition: Option<&Path>) -> Self {
        Self::start_with(dir, port, definition, &[])
    }

    /// The same, with more options.
    pub fn start_with(dir: &Path, port: u16, definition: Option<&Path>, options: &[&str]) -> Self {
        Self::start_logging(dir, port, definition, options, Stdio::null())
    }

    /// The same, with its standard error kept.
    pub fn start_logging(
        dir: &Path,
        port: u16,
        definition: Option<&Path>,
        options: &[&str],
        log: impl Into<Stdio>,
    ) -> Self {
        let mut command = Command::new(binary("recount-local"));
        command.args(["serve", "--port", &port.to_string(), "--data"]).arg(dir).args(options);
        if let Some(definition) = definition {
            command.arg("--definition").arg(definition);
        }
        Self::spawn(command, port, log.into())
    }

    /// Starts it where a process may have so many open files.
    pub fn start_with_files(dir: &Path, port: u16, files: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n "$1"; shift; exec "$@""#, "sh", &files.to_string()]);
        command.arg(binary("recount-local")).args(["serve", "--port", &port.to_string(), "--data"]).arg(dir);
        Self::spawn(command, port, Stdio::null())
    }

    fn spawn(mut command: Command, port: u16, log: Stdio) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("serve starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.next().expect("serve says a line before it ends").expect("the line is UTF-8");
        assert!(ready.contains(&port.to_string()), "unexpected first line: {ready}");
        // Keep the pipe open and drained, so that serve never blocks on it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    /// Its endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill_9(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("a killed process can be waited for");
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(self) -> std::process::ExitStatus {
        self.signal("TERM")
    }

    /// A signal by its name, and how it ended.
    pub fn signal(mut self, name: &str) -> std::process::ExitStatus {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(done.success());
        self.child.wait().expect("serve ends")
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one of the binaries against an endpoint and returns what it said.
pub fn run(name: &str, endpoint: &str, dir: &Path, args: &[&str]) -> Output {
    command(name, endpoint, dir).args(args).output().expect("the binary runs")
}

/// One of the binaries, ready to be run against an endpoint.
pub fn command(name: &str, endpoint: &str, dir: &Path) -> Command {
    let mut command = Command::new(binary(name));
    command.current_dir(dir).env("AWS_ENDPOINT_URL", endpoint).env("AWS_REGION", "us-east-1").env("NO_COLOR", "1");
    command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "thing");
    command
}

/// The last line of what a binary printed, as JSON; with all that it said where that is none.
pub fn json(output: &Output) -> serde_json::Value {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&out)
        .or_else(|_| serde_json::from_str(out.lines().last().unwrap_or_default()))
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{out}\n{err}", output.status))
}

/// What `recount usage --format json` says, in the oracle's shape.
pub fn usage(endpoint: &str, dir: &Path) -> super::naive::Totals {
    let output = run("recount", endpoint, dir, &["usage", "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    months(&json(&output))
}

/// The months of a report in the oracle's shape.
pub fn months(report: &serde_json::Value) -> super::naive::Totals {
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let months = report["months"].as_array().expect("months").iter().map(|line| {
        let bytes = text(&line["sums"]["bytes"]).parse().expect("whole bytes");
        ((text(&line["group"]), text(&line["month"])), (line["events"].as_i64().expect("events"), bytes))
    });
    months.collect()
}

/// Runs a Python script from `tests/it/python` with the interpreter that `tests/run` prepared, and returns its last line as JSON.
pub fn python(script: &str, args: &[&str]) -> serde_json::Value {
    let output = python_command(script, args).output().expect("python runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script}: {}\n{stdout}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(stdout.lines().last().expect("the script prints its result")).expect("the result is JSON")
}

/// The command that runs a Python script from `tests/it/python`.
pub fn python_command(script: &str, args: &[&str]) -> Command {
    let interpreter = std::env::var("RECOUNT_TEST_PYTHON")
        .expect("RECOUNT_TEST_PYTHON names a Python with duckdb and boto3: run tests/run, or set it");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/python").join(script);
    let mut command = Command::new(interpreter);
    command.arg(path).args(args);
    command
}

/// Waits for a condition that another process brings about; fails after two minutes.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    for _ in 0..1_200 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited two minutes in vain for: {what}");
}
