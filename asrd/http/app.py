"""The ASGI application: paths, and what all answers have in common."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from asrd.errors import AsrdError, Code
from asrd.http import errors
from asrd.http.guard import Guard
from asrd.http.keys import Keys
from asrd.http.monitor import Monitor
from asrd.http.page import page
from asrd.http.service import Service
from asrd.http.transcriptions import Transcriptions


def make_app(service: Service, keys: Keys | None) -> ASGIApp:
    """Returns the application. Some programs leave out the `/v1` that the official client sends."""
    monitor = Monitor(service)
    routes = [
        Route("/", page(), methods=["GET"]),
        Route("/healthz", monitor.healthz),
        Route("/readyz", monitor.readyz),
        Route("/status", monitor.status),
        Route("/metrics", monitor.metrics),
    ]
    for prefix in ("/v1", ""):
        routes += [
            Route(f"{prefix}/models", monitor.models),
            Route(f"{prefix}/models/{{name:path}}", monitor.model),
        ]
        for path, task in (("transcriptions", "transcribe"), ("translations", "translate")):
            endpoint = Transcriptions(service, task)
            routes.append(Route(f"{prefix}/audio/{path}", endpoint, methods=["POST"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, keys=keys, hosts=service.settings.hosts)],
        exception_handlers={
            HTTPException: _refused,
            AsrdError: _failed,
            Exception: _broken,
        },
    )
    # It would name http:// and this host, whatever a proxy in front of it is called.
    app.router.redirect_slashes = False
    return service.responses.of(app)


async def _refused(request: Request, error: Exception) -> Response:
    """A path or a method that there is not; the codes are OpenAI's."""
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    text = f"{request.method} {request.scope['path'][:256]}: {error.detail}"
    code = "method_not_supported" if status == 405 else "unknown_url"
    return JSONResponse({"error": errors.body(status, text, code)}, status, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    if not isinstance(error, AsrdError):
        raise error
    return errors.response(error)


async def _broken(request: Request, error: Exception) -> Response:
    """A bug; the server logs the traceback."""
    text = "a bug in asrd-http; its log has the traceback"
    return errors.response(errors.HttpError(500, text, code=Code.INTERNAL, retry=False))
