//! A pipeline in a process of its own, and the tools run on it as an operator would. Tests add what they need of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use recount_local::client;
use recount_local::clients::Clients;
use serde_json::Value;

use super::process::{self, Serve, free_port, json};

/// A served pipeline, and the directory in which its tools run.
pub struct Shell {
    pub serve: Serve,
    pub data: PathBuf,
    pub clients: Clients,
    _dir: tempfile::TempDir,
}

impl Shell {
    /// Serves with this definition, or else the one of the first use.
    pub async fn start(definition: Option<&str>, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, data) = (dir.path().join("ours.toml"), dir.path().join("data"));
        if let Some(definition) = definition {
            fs::write(&file, definition).unwrap();
        }
        let serve = Serve::start_with(&data, free_port(), definition.map(|_| file.as_path()), options);
        let clients = Clients::new(&client::sdk_config(&serve.endpoint()).await);
        Self { serve, data, clients, _dir: dir }
    }

    /// One that archives only when it is told to.
    pub async fn quiet(definition: Option<&str>) -> Self {
        Self::start(definition, &["--archive-every", "86400"]).await
    }

    /// A tool, ready to be run.
    pub fn command(&self, tool: &str) -> Command {
        process::command(tool, &self.serve.endpoint(), &self.data)
    }

    /// What a tool says as JSON; where it says nothing, what it complains of. It must end with `code`.
    pub fn tool(&self, tool: &str, code: i32, arguments: &[&str]) -> Value {
        let output: Output = self.command(tool).args(arguments).args(["--format", "json"]).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{tool} {arguments:?}: {out}\n{err}");
        if out.is_empty() { Value::String(err.into_owned()) } else { json(&output) }
    }

    /// The same of `recount`.
    pub fn run(&self, code: i32, arguments: &[&str]) -> Value {
        self.tool("recount", code, arguments)
    }

    /// The same by a line as typed.
    pub fn recount(&self, code: i32, line: &str) -> Value {
        self.run(code, &line.split(' ').collect::<Vec<_>>())
    }
}
