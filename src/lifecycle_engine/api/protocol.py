"""HTTP/1.1 on a connection: uvicorn's, whose refusal of what is no HTTP is a problem like every other error."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lifecycle_engine.api.problems import ProblemError, unread_request_response


class HttpProtocol(HttpToolsProtocol):
    """Closes the connection once it has refused, since where the next request would begin is a guess."""

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn where its parser gives up; the message says no more than that it did."""
        error = ProblemError(400, "malformed_http", "what was sent is not HTTP/1.1 as RFC 9112 has it")
        self.transport.write(unread_request_response(error))
        self.transport.close()
