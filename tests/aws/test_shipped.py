"""The functions as they are shipped: the binaries that `cargo lambda build --release` made, behind a runtime API as Lambda's.

    RECOUNT_SHIPPED=target/lambda RECOUNT_TEST_BINARIES=target/debug python -m unittest tests/aws/test_shipped.py

`tests/long/lambda` builds and runs this. It prints sizes and the time from the start of a process to its first request for an
event, the part of a cold start that is ours; what Lambda adds (the microVM, the download) only AWS can show.
"""

import base64
import http.server
import io
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SHIPPED = pathlib.Path(os.environ.get("RECOUNT_SHIPPED", ROOT / "target/lambda"))
BINARIES = pathlib.Path(os.environ.get("RECOUNT_TEST_BINARIES", ROOT / "target/debug"))
DEFINITION = (ROOT / "infra/local/recount.toml").read_bytes()
FUNCTIONS = ("consumer", "relay", "compactor")
PATIENCE = 60  # s
# The most MB of a deployment package. Lambda takes 50; what is larger starts later.
LARGEST = 15


class Api(http.server.ThreadingHTTPServer):
    """Lambda's runtime API (Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes")."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Invocation)
        self.events, self.answers, self.asked = queue.Queue(), queue.Queue(), queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        pass  # a function that is killed leaves its request for the next event


class Invocation(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.put(time.monotonic())
        number, event = self.server.events.get()
        body = json.dumps(event).encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", f"request-{number}")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + 30) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.answers.put((self.path.rsplit("/", 1)[1], json.loads(body)))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Function:
    """A bootstrap, run as Lambda runs it."""

    def __init__(self, name, environment=()):
        self.api = Api()
        self.log = tempfile.TemporaryFile("w+")
        names = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.api.server_port}", "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "thing", "AWS_LAMBDA_LOG_FORMAT": "JSON",
            # Nothing listens there: what calls AWS where it should not fails at once.
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9", **dict(environment),
        }
        started = time.monotonic()
        command = [SHIPPED / name / "bootstrap"]
        self.process = subprocess.Popen(command, env=names, cwd="/tmp", stdout=self.log, stderr=subprocess.STDOUT)
        try:
            self.ready = self.api.asked.get(timeout=PATIENCE) - started
        except queue.Empty:
            self.log.seek(0)
            raise AssertionError(f"{name} asked for no event: {self.log.read()[-2000:]}") from None

    def invoke(self, number, event):
        """`response` or `error`, and its body."""
        self.api.events.put((number, event))
        return self.api.answers.get(timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.api.shutdown()
        self.api.server_close()
        self.log.close()


def package(name):
    """The size of the deployment package."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(SHIPPED / name / "bootstrap", "bootstrap")
    return len(made.getvalue())


class Shipped(unittest.TestCase):
    def test_a_panic_is_answered_as_an_error_and_the_next_event_by_the_same_process(self):
        with Function("panics") as function:
            self.assertEqual(function.invoke(1, {}), ("response", "alive"))
            kind, error = function.invoke(2, {"panic": True})
            self.assertEqual(kind, "error")
            self.assertIn("as asked", error["errorMessage"])
            self.assertEqual(function.invoke(3, {}), ("response", "alive"))
            self.assertIsNone(function.process.poll(), "an abort would have ended it")

    def test_they_are_small(self):
        for name in FUNCTIONS:
            with self.subTest(name):
                binary, zipped = (SHIPPED / name / "bootstrap").stat().st_size, package(name)
                print(f"{name}: {binary / 1e6:.1f} MB, {zipped / 1e6:.1f} MB as a package")
                self.assertLess(zipped, LARGEST * 1_000_000)

    def start(self, name, environment, event=None, expected=None):
        times = []
        for _ in range(5):
            with Function(name, environment) as function:
                times.append(function.ready)
                if event is not None:
                    self.assertEqual(function.invoke(1, event), ("response", expected))
        print(f"{name}: asks for its first event after {sorted(times)[2] * 1000:.0f} ms (median of 5)")

    def test_the_relay_starts_and_answers(self):
        self.start("relay", {"RECOUNT_STREAM": "s", "RECOUNT_BUCKET": "b"}, {"Records": []}, {"batchItemFailures": []})

    def test_the_compactor_starts(self):
        self.start("compactor", {"RECOUNT_DEFINITION_TOML": f"base64:{base64.b64encode(DEFINITION).decode()}"})

    def test_the_consumer_starts_and_answers(self):
        place = tempfile.mkdtemp(prefix="recount-shipped-")
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [BINARIES / "recount-local", "serve", "--port", str(port), "--data", f"{place}/data"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as serve:
            try:
                self.assertIn(str(port), serve.stdout.readline())
                environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                               "RECOUNT_DEFINITION_TOML": f"base64:{base64.b64encode(DEFINITION).decode()}"}
                self.start("consumer", environment, {"Records": []}, {"batchItemFailures": []})
            finally:
                serve.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    unittest.main()
