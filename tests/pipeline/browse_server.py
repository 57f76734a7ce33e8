"""`voxquarry browse` on a port of its own, in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.run_browse import open_shop, server_of
from pipeline.storage import Corpus


@contextmanager
def serving(corpus: Corpus) -> Iterator[str]:
    """Its address, as long as the block lasts."""
    server = server_of(open_shop(corpus.root))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
