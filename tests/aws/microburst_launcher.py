"""microburst, a proxy that breaks requests by rules, started in this process with a seed and the two patches that the test needs.

    python microburst_launcher.py SEED --host 127.0.0.1 --port PORT --upstream URL

1. `response: {abort_bytes: 0}`: the request is done upstream, and the connection ends without a byte of the answer. Stock, microburst
   sends the answer's head first, and where the answer has no body, such as that of S3's PutObject, all of it: nothing is cut. What a
   client makes of a write that was done and not answered is just what is asked here.
2. `Host` and `Content-Length` go upstream as the client sent them: its signature is over them.
"""

import importlib.metadata
import random
import sys

VERSION = "0.10.0"


def main():
    found = importlib.metadata.version("microburst")
    if found != VERSION:
        sys.exit(f"microburst_launcher: microburst is {found}; the patches are for {VERSION}: read them again, then raise VERSION")
    from aiohttp import web

    from microburst import cli, forward

    stock = forward._stream_to_client

    async def to_client(request, status, headers, mutator, chunks):
        if mutator is None or mutator.abort_bytes != 0:
            return await stock(request, status, headers, mutator, chunks)
        async for _ in chunks:  # the whole answer: what was asked is done
            pass
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # goes nowhere

    forward._stream_to_client = to_client
    outbound_headers = forward.Upstream._outbound_headers

    def outbound(self, request):
        signed = {name: request.headers[name] for name in ("host", "content-length") if name in request.headers}
        return outbound_headers(self, request) | signed

    forward.Upstream._outbound_headers = outbound
    seed, *arguments = sys.argv[1:]
    random.seed(seed)  # rules draw from the module's own generator
    sys.exit(cli.main(arguments))


if __name__ == "__main__":
    main()
