"""HTTP around a handler: GET only, errors as JSON sentences, ETag and 304, gzip where it is accepted."""

from __future__ import annotations

import functools
import gzip
import hashlib
import logging
from collections.abc import Callable
from typing import Any

from tensorboard.backend import http_util
from tensorboard.errors import PublicError
from werkzeug import wrappers

from tb_bnlens.plugin.wire import FRAME_TYPE, JSON_TYPE, to_json
from tb_bnlens.reader import RunNotFound, Unreadable

logger = logging.getLogger("tensorboard.bn_lens")

Handler = Callable[[Any, wrappers.Request], wrappers.Response]

# Below it gzip's own overhead eats what it saves.
WORTH_COMPRESSING = 1024


class BadRequest(ValueError):
    """A parameter is missing or wrong; the message says which and what is expected."""


class NotThere(LookupError):
    """What the parameters name does not exist."""


class NotModified(wrappers.Response):
    """A 304 with its Content-Type, which RFC 9110 allows.

    Werkzeug leaves it out, and TensorBoard writes two lines to its console for every response without one: a tab that
    polls would flood it.
    """

    default_status = 304

    def get_wsgi_headers(self, environ: Any) -> Any:
        """The headers to be sent."""
        headers = super().get_wsgi_headers(environ)
        headers["Content-Type"] = self.headers["Content-Type"]
        return headers


def route(handler: Handler) -> Callable[..., Any]:
    """A WSGI application from a method ``(self, request) -> response`` that may raise."""

    @functools.wraps(handler)
    def application(self: Any, request: wrappers.Request) -> wrappers.Response:
        if request.method != "GET":
            return error(request, 405, f"{request.method} is not supported; use GET", [("Allow", "GET")])
        try:
            return handler(self, request)
        except BadRequest as problem:
            return error(request, 400, str(problem))
        except (NotThere, RunNotFound) as problem:
            return error(request, 404, str(problem))
        except PublicError as problem:
            return error(request, problem.http_code, str(problem), problem.headers)
        except Unreadable as problem:
            logger.warning("%s", problem, exc_info=True)
            return error(request, 500, f"{problem}. Reload to try again; TensorBoard's console has the details.")
        except Exception as problem:
            logger.exception("BN Lens: %s failed", request.path)
            return error(
                request,
                500,
                f"BN Lens failed on this run ({type(problem).__name__}: {problem}). "
                "That is a fault of BN Lens: TensorBoard's console has the traceback for a report.",
            )

    return wrappers.Request.application(application)  # type: ignore[arg-type]


def respond(
    request: wrappers.Request, tag: object, content_type: str, content: Callable[[], bytes]
) -> wrappers.Response:
    """The content, or 304 without computing it where the client has what ``tag`` stands for.

    Args:
        request: for its conditional and encoding headers.
        tag: everything that the content depends on; its ``repr`` is hashed into the ETag.
        content_type: MIME type.
        content: called only where the content has to be sent.
    """
    etag = hashlib.sha256(repr(tag).encode("utf-8", "backslashreplace")).hexdigest()[:32]
    headers = [("ETag", f'W/"{etag}"'), ("Vary", "Accept-Encoding")]
    if request.if_none_match.contains_weak(etag):
        return NotModified(
            headers=[*headers, ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")],
            content_type=content_type,
        )
    body = content()
    encoding = None
    if content_type == FRAME_TYPE and len(body) > WORTH_COMPRESSING and _accepts_gzip(request):
        body, encoding = gzip.compress(body, compresslevel=1, mtime=0), "gzip"
    return _respond(request, body, content_type, content_encoding=encoding, headers=headers)


def error(
    request: wrappers.Request, code: int, sentence: str, headers: list[tuple[str, str]] | None = None
) -> wrappers.Response:
    """``{"error": sentence}`` with a status."""
    return _respond(request, to_json({"error": sentence}), JSON_TYPE, code=code, headers=headers)


def _accepts_gzip(request: wrappers.Request) -> bool:
    return bool(request.accept_encodings["gzip"])


def _respond(*arguments: Any, **options: Any) -> wrappers.Response:
    response: wrappers.Response = http_util.Respond(*arguments, **options)
    return response
