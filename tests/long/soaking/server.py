"""`recount-local serve` as a process: started, killed, and looked at through /proc."""

import os
import selectors
import signal
import subprocess
import time

START_LIMIT = 120  # s; a start that takes longer has failed
STOP_LIMIT = 60
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """One directory and one port; one process at a time, a new one for each life."""

    def __init__(self, binary, data, port, log, options):
        self.command = [binary, "serve", "--port", str(port), "--data", data, *options]
        self.log, self.process, self.life = log, None, 0
        self.starts = []  # seconds from spawn to ready, one for each life
        self.downs = []  # (from, to) on the monotonic clock; `to` is none while it is down

    def spawn(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "NO_COLOR": "1"})

    def start(self):
        """Starts it and waits for the line that says that it is ready."""
        begun = time.monotonic()
        self.spawn()
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            line = self.process.stdout.readline() if ready.select(START_LIMIT) else b""
        if not line.startswith(b"ready: "):
            raise RuntimeError(f"serve did not become ready within {START_LIMIT} s; see {self.log}")
        now = time.monotonic()
        self.starts.append(now - begun)
        self.life += 1
        if self.downs and self.downs[-1][1] is None:
            self.downs[-1] = (self.downs[-1][0], now)

    def kill(self):
        """SIGKILL: no handler runs, nothing is flushed."""
        if not (self.downs and self.downs[-1][1] is None):
            self.downs.append((time.monotonic(), None))
        self.process.kill()
        self._gone()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self._gone(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self._gone()

    def _gone(self, limit=None):
        code = self.process.wait(limit)
        self.process.stdout.close()
        return code

    def was_up(self, begun, ended):
        """Whether one life covers the whole time from `begun` to `ended`."""
        return all(ended < down or (up is not None and up < begun) for down, up in self.downs)

    def look(self):
        """What /proc says of the process now, or none where it is gone. Memory in KiB, time on the processor in s."""
        proc = f"/proc/{self.process.pid}"
        try:
            with open(f"{proc}/status") as file:
                status = dict(line.split(":", 1) for line in file)
            sample = {field.lower(): int(status[field].split()[0]) for field in ("VmRSS", "RssAnon", "VmHWM", "Threads")}
            kinds = [os.readlink(f"{proc}/fd/{fd}").startswith("socket:") for fd in os.listdir(f"{proc}/fd")]
            # Sockets are the clients' to open and close; files are the server's own.
            sample["sockets"], sample["files"] = sum(kinds), len(kinds) - sum(kinds)
            sample["cpu"] = processor_time(f"{proc}/stat")
            sample["compactor_cpu"] = 0.0
            for thread in os.listdir(f"{proc}/task"):
                with open(f"{proc}/task/{thread}/comm") as file:
                    if file.read().strip() == "compactor":
                        sample["compactor_cpu"] += processor_time(f"{proc}/task/{thread}/stat")
            return {"life": self.life, **sample}
        except (OSError, KeyError):
            return None


def processor_time(stat):
    with open(stat) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
