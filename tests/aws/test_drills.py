"""infra/runbooks/drills.md, by its very commands: each must end as the page says, and say the word that it says.

    RECOUNT_TEST_BINARIES=target/debug python -m unittest tests/aws/test_drills.py

In place of the AWS CLI stands a few lines of botocore; RECOUNT_TEST_AWS names the real one, to see that it takes these commands, too.
Where the page sleeps, for people, the test waits until a mark behind all that was written is counted.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from template import ROOT  # noqa: E402

BINARIES = pathlib.Path(os.environ.get("RECOUNT_TEST_BINARIES", ROOT / "target/debug")).resolve()
PAGE = (ROOT / "infra/runbooks/drills.md").read_text()

AWS = f"""#!{sys.executable}
import json, os, sys
import botocore.session
from botocore import xform_name
service, operation, *words = sys.argv[1:]
session = botocore.session.get_session()
client = session.create_client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
method = xform_name(operation.title().replace("-", ""))
shape = client.meta.service_model.operation_model(operation.title().replace("-", "")).input_shape
names = {{xform_name(name).replace("_", "-"): name for name in shape.members}}
given = {{}}
for option, value in zip(words[::2], words[1::2], strict=True):
    name = names[option.removeprefix("--")]
    kind = shape.members[name].type_name
    given[name] = value if kind == "string" else json.loads(value)
getattr(client, method)(**given)
"""

# Behind a mark that is counted before the next one is written, all that was written before is in the stream.
SETTLED = r"""
marks=0
sleep() {
  for _ in 1 2; do
    marks=$((marks + 1))
    producer record --project marks --at 2026-11-10T12:00:00+08:00 > /dev/null
    for _ in $(seq 600); do
      recount --set base usage marks --format json | grep -q "\"events\":$marks," && continue 2
      command sleep 0.1
    done
    echo "the mark was not counted" >&2
    exit 99
  done
}
said() {  # the exit code and the word that must be; what was typed
  if [ "$2" != "$code" ]; then echo "not $2, $code: $3"; cat out; exit 98; fi
  if ! grep -qwF -- "$1" out; then echo "not a word of $1: $3"; cat out; exit 97; fi
}
"""


def blocks():
    """The page's commands, a list for each block."""
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S)]


def script(lines):
    """The commands, each held against what the comment behind it says."""
    done = []
    for line in lines:
        command, _, says = line.partition("  # ")
        promised = re.fullmatch(r"(\d)(?:: (.*))?", says.strip())
        if not promised:
            done.append(command)
            continue
        code, word = promised[1], promised[2] or ""
        done += [f"code=0; {command} > out 2>&1 || code=$?", f"said {quoted(word)} {code} {quoted(command.strip())}"]
    return "\n".join(done)


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


class Drills(unittest.TestCase):
    def test_the_page_as_it_stands(self):
        with tempfile.TemporaryDirectory(prefix="recount-drills-") as place:
            (build, serve), *rest = blocks()
            self.assertEqual(build, "cargo build --release")
            tool, *options = serve.replace("4566", "0").split()
            running = subprocess.Popen([BINARIES / pathlib.Path(tool).name, *options], cwd=place, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True)
            try:
                port = re.match(r"ready: http://127\.0\.0\.1:(\d+) ", running.stdout.readline())[1]
                bin = pathlib.Path(place) / "bin"
                bin.mkdir()
                if os.environ.get("RECOUNT_TEST_AWS"):
                    (bin / "aws").symlink_to(os.environ["RECOUNT_TEST_AWS"])
                else:
                    (bin / "aws").write_text(AWS)
                    (bin / "aws").chmod(0o755)
                lines = [line for block in rest for line in block]
                self.assertGreater(sum(line.startswith("recount ") for line in lines), 50)
                text = "set -eu\n" + SETTLED + script(lines).replace("4566", port)
                env = {**os.environ, "PATH": f"{bin}:{BINARIES}:{os.environ['PATH']}", "NO_COLOR": "1"}
                env = {name: value for name, value in env.items() if not name.startswith(("AWS_", "RECOUNT_"))}
                done = subprocess.run(["bash", "-c", text], cwd=place, env=env, capture_output=True, text=True, timeout=600)
                self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-4000:])
            finally:
                running.send_signal(signal.SIGTERM)
                running.wait(60)
                running.stdout.close()

    def test_every_runbook_has_its_drill(self):
        for page in sorted((ROOT / "infra/runbooks").glob("*.md")):
            if page.name != "drills.md":
                self.assertIn(f"({page.name})", PAGE)


if __name__ == "__main__":
    unittest.main()
