"""A door before local mode that writes down what is asked for: the rights that a command would need on AWS."""

import contextlib
import http.client
import http.server
import json
import threading
import urllib.parse

# The right of an S3 request where it is not the operation's name (S3 User Guide, "Required permissions").
OF_BUCKET = {
    "list-type": "ListBucket", "versioning": "GetBucketVersioning", "lifecycle": "GetLifecycleConfiguration",
    "policy": "GetBucketPolicy", "publicAccessBlock": "GetBucketPublicAccessBlock",
}
OF_OBJECT = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
HOP = {"connection", "transfer-encoding", "host", "content-length", "keep-alive"}


def rights(method, path, headers, body):
    """What a request needs: rights and ARNs, as (action, resource)."""
    target = headers.get("x-amz-target")
    if target:
        service, operation = target.split(".")
        asked = json.loads(body)
        if service.startswith("DynamoDB"):
            tables = list(asked["RequestItems"]) if operation == "BatchGetItem" else [asked["TableName"]]
            return {(f"dynamodb:{operation}", f"arn:aws:dynamodb:us-east-1:123456789012:table/{table}") for table in tables}
        # An iterator and a token are of the stream that they were given for; there is one that is read.
        stream = asked.get("StreamName") or asked.get("StreamARN", "").rpartition("/")[2] or "recount-changes"
        return {(f"kinesis:{operation}", f"arn:aws:kinesis:us-east-1:123456789012:stream/{stream}")}
    url = urllib.parse.urlsplit(path)
    bucket, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
    if not key:
        asked = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        (action,) = [action for name, action in OF_BUCKET.items() if name in asked]
        return {(f"s3:{action}", f"arn:aws:s3:::{bucket}")}
    needed = {(f"s3:{OF_OBJECT[method]}", f"arn:aws:s3:::{bucket}/{key}")}
    source = headers.get("x-amz-copy-source")
    if source:
        needed.add(("s3:GetObject", "arn:aws:s3:::" + urllib.parse.unquote(source).lstrip("/")))
    return needed


@contextlib.contextmanager
def door(to_port):
    """Forwards to a port of this machine. Yields its own port, and the set that needed rights are put into."""
    seen = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.update(rights(self.command, self.path, self.headers, body))
            there = http.client.HTTPConnection("127.0.0.1", to_port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            there.request(self.command, self.path, body, {**headers, "Host": self.headers["Host"]})
            answer = there.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            # Of a HEAD it is the length of what is not sent.
            self.send_header("Content-Length", answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # whoever asked is gone
                self.wfile.write(content)
            there.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()
