"""The processes that stand in for AWS: MiniStack, and microburst between it and the functions.

    functions ──► microburst ──► MiniStack ◄── the test, `recount`

microburst forwards everything until it is given rules; it breaks only what the functions ask for, never the test's own requests.
"""

import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3
import botocore.config

HERE = pathlib.Path(__file__).resolve().parent
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
START = 60  # s: a start takes two, on a busy machine ten


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()


def until(what, ask, seconds, every=0.2):
    """The first true answer to `ask`, at most `seconds` waited for."""
    ends = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > ends:
            raise TimeoutError(f"{what}: not after {seconds} s; the last answer was {answer!r}")
        time.sleep(every)


class StandIn:
    def __init__(self, place, seed):
        self.place, self.seed = pathlib.Path(place), seed
        self.port, self.fault_port = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.faulty = f"http://127.0.0.1:{self.fault_port}"
        self.processes, self.logs = [], {}

    def begin(self):
        """Starts both, and waits until they answer."""
        for name in ("home", "temporary", "s3", "state"):
            (self.place / name).mkdir()
        self.start_ministack()
        self.start_microburst()
        self.answers("ministack", f"{self.endpoint}/_ministack/health")
        self.answers("microburst", f"{self.faulty}/_microburst/health")
        # Not on a function's time: the first request of a service loads its model, for seconds.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda ask: ask(), self.warming()))

    def start_ministack(self):
        # Functions inherit all of this: nothing is in it that AWS would not give them, but for MiniStack's own names.
        self.start("ministack", [sys.executable, "-B", HERE / "ministack_launcher.py"], {
            **KEYS,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.faulty,
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "AUTH": "true",
            "LAMBDA_EXECUTOR": "local",
            "ATHENA_ENGINE": "duckdb",
            "S3_DATA_DIR": str(self.place / "s3"),
            "STATE_DIR": str(self.place / "state"),
        })

    def start_microburst(self):
        command = [sys.executable, "-B", HERE / "microburst_launcher.py", self.seed, "--host", "127.0.0.1", "--port", self.fault_port]
        self.start("microburst", [*command, "--upstream", self.endpoint], {})

    def warming(self):
        dynamodb, kinesis, s3, glue = (self.client(name, self.faulty) for name in ("dynamodb", "kinesis", "s3", "glue"))
        return [dynamodb.list_tables, kinesis.list_streams, s3.list_buckets, glue.get_databases]

    def start(self, name, command, environment):
        log = self.logs[name] = self.place / f"{name}.log"
        environment = {"PATH": os.defpath, "HOME": str(self.place / "home"), "TMPDIR": str(self.place / "temporary"), **environment}
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command], env=environment, cwd=self.place, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append((name, process))

    def answers(self, name, url):
        process = dict(self.processes)[name]

        def asked():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{self.log(name)}")
            try:
                return request(url) is not None
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        until(f"{name} at {url}", asked, START)

    def stop(self):
        for name, process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for name, process in reversed(self.processes):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def log(self, name, last=20_000):
        return self.logs[name].read_text(errors="replace")[-last:]

    def client(self, service, endpoint=None, keys=KEYS):
        """A client past the faults, of the account's root, unless told otherwise."""
        patient = botocore.config.Config(
            region_name=REGION, connect_timeout=10, read_timeout=300, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
        )
        return boto3.client(
            service, endpoint_url=endpoint or self.endpoint, aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"], config=patient,
        )

    def rules(self, rules):
        """The faults from now on."""
        request(f"{self.faulty}/_microburst/rules", rules)

    def faults(self):
        """How often each fault struck since the start: (service, operation, action) to number."""
        counts = {}
        for line in request(f"{self.faulty}/_microburst/metrics").decode().splitlines():
            if line.startswith("microburst_faults_total{"):
                labels, _, count = line[len("microburst_faults_total{"):].rpartition("} ")
                values = dict(part.split("=", 1) for part in labels.split(","))
                counts[tuple(values[name].strip('"') for name in ("service", "operation", "action"))] = int(count)
        return counts


def request(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=10) as answer:
        return answer.read()
