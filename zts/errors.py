"""The one tree of errors that zts raises, answers and sends over the wire.

Each class carries three things: ``http_status`` (what REST answers), ``code`` (a short stable word
on the wire, from which the other side rebuilds the class) and ``type_name`` (the ``type`` field of
TorchServe's error body). ``public_message`` is what a client may read; anything private goes to the
log only. Layer 0: values only.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BadArchive",
    "BadRequest",
    "BatchMismatch",
    "BrokerUnavailable",
    "Cancelled",
    "ClientError",
    "ConfigError",
    "Conflict",
    "DeadlineExceeded",
    "DefaultVersionInUse",
    "DownloadFailed",
    "HandlerFailed",
    "InvalidHandlerOutput",
    "LocalProtocolError",
    "MethodNotAllowed",
    "ModelNotFound",
    "NoWorker",
    "OutOfResources",
    "PoisonJob",
    "ProtocolError",
    "QueueFull",
    "RemoteProtocolError",
    "RequestTooLarge",
    "ResourceNotFound",
    "ServerError",
    "ServerStopping",
    "StartWorkersFailed",
    "VersionNotFound",
    "WorkerDied",
    "ZtsError",
    "error_from_wire",
]


class ZtsError(Exception):
    """Any failure that zts reports; the base of all others.

    Args:
        public_message: One line that a client may read: what was wrong and what to do.
        http_status: Overrides the class's status for this one error.
        type_name: Overrides the class's TorchServe type for this one error.

    Attributes:
        answer: For callers of a model: what its handler answered with an error status of its own, else None.
    """

    answer: object = None
    http_status: int = 500
    code: ClassVar[str] = "internal"
    type_name: str = "InternalServerException"

    def __init__(
        self, public_message: str = "", *, http_status: int | None = None, type_name: str | None = None
    ) -> None:
        super().__init__(public_message)
        self.public_message = public_message or type(self).__doc__ or ""
        if http_status is not None:
            self.http_status = http_status
        if type_name is not None:
            self.type_name = type_name


class ClientError(ZtsError):
    """The request was wrong; sending it again unchanged will fail again."""

    http_status = 400
    code = "bad_request"
    type_name = "BadRequestException"


class BadRequest(ClientError):
    """The request is malformed."""


class ConfigError(ClientError):
    """A flag, configuration key or file that the user gave is wrong."""

    code = "config"


class ModelNotFound(ClientError):
    """No model of this name is registered."""

    http_status = 404
    code = "model_not_found"
    type_name = "ModelNotFoundException"


class VersionNotFound(ClientError):
    """The model is registered, but not in this version."""

    http_status = 404
    code = "version_not_found"
    type_name = "ModelVersionNotFoundException"


class ResourceNotFound(ClientError):
    """Nothing is served at this path."""

    http_status = 404
    code = "resource_not_found"
    type_name = "ResourceNotFoundException"


class MethodNotAllowed(ClientError):
    """The path exists, the method does not.

    Attributes:
        allowed: The methods that it has.
    """

    allowed: frozenset[str] = frozenset()

    http_status = 405
    code = "method_not_allowed"
    type_name = "MethodNotAllowedException"


class Conflict(ClientError):
    """Such a model and version is registered already."""

    http_status = 409
    code = "conflict"
    type_name = "ConflictStatusException"


class DefaultVersionInUse(ClientError):
    """The default version cannot be removed while others exist."""

    http_status = 403
    code = "default_version"
    type_name = "InvalidModelVersionException"


class RequestTooLarge(ClientError):
    """The body is larger than max_request_size, or body or headers than a message can hold."""

    http_status = 413
    code = "too_large"
    type_name = "RequestTooLargeException"


class BadArchive(ClientError):
    """The archive cannot be used; the message says why."""

    http_status = 500
    code = "bad_archive"
    type_name = "InternalServerException"


class DownloadFailed(ClientError):
    """The archive could not be fetched."""

    code = "download_failed"
    type_name = "DownloadArchiveException"


class Cancelled(ClientError):
    """The client gave up before the answer came."""

    http_status = 499
    code = "cancelled"
    type_name = "RequestCancelledException"


class ServerError(ZtsError):
    """The request was fine; the server could not do it."""

    http_status = 500
    code = "server"


class NoWorker(ServerError):
    """The model has no worker that could run the job."""

    http_status = 503
    code = "no_worker"
    type_name = "ServiceUnavailableException"


class QueueFull(ServerError):
    """The model's queue is at its bound (jobs or bytes)."""

    http_status = 503
    code = "queue_full"
    type_name = "ServiceUnavailableException"


class DeadlineExceeded(ServerError):
    """The request's time budget ran out before an answer was there."""

    http_status = 408
    code = "deadline"
    type_name = "RequestTimeoutException"


class HandlerFailed(ServerError):
    """The model's handler raised; the traceback is in the log."""

    http_status = 503
    code = "handler_failed"


class InvalidHandlerOutput(ServerError):
    """The handler returned something that is not a list of answers."""

    http_status = 503
    code = "bad_output"


class BatchMismatch(ServerError):
    """The handler returned another number of answers than it got requests."""

    http_status = 503
    code = "batch_mismatch"


class OutOfResources(ServerError):
    """The worker ran out of memory (host or GPU) on this batch."""

    http_status = 507
    code = "out_of_resources"


class WorkerDied(ServerError):
    """The worker died with the job and no attempt is left."""

    http_status = 500
    code = "worker_died"


class PoisonJob(ServerError):
    """The job was running in every worker that died with it, so it is not tried again."""

    http_status = 500
    code = "poison"


class StartWorkersFailed(ServerError):
    """Workers of the model could not be started; the message gives the cause."""

    http_status = 500
    code = "start_failed"


class BrokerUnavailable(ServerError):
    """No broker answers at the address."""

    http_status = 503
    code = "no_broker"
    type_name = "ServiceUnavailableException"


class ServerStopping(ServerError):
    """The server is stopping: it takes no new requests, or gave this one up."""

    http_status = 503
    code = "stopping"
    type_name = "ServiceUnavailableException"


class ProtocolError(ZtsError):
    """A message broke the rules of PROTOCOL.md."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """Our side tried to send something illegal: a bug of ours, raised."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something illegal: counted, logged at a limited rate and dropped."""

    http_status = 400
    code = "bad_message"


def _tree(cls: type[ZtsError]) -> list[type[ZtsError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _tree(child))]


# First definition wins: ClientError and BadRequest share a code, and BadRequest is what users catch.
_BY_CODE: dict[str, type[ZtsError]] = {cls.code: cls for cls in reversed(_tree(ZtsError))}
_BY_CODE["bad_request"] = BadRequest


def error_from_wire(code: str, message: str, http_status: int, type_name: str | None = None) -> ZtsError:
    """Rebuild the error that the other side sent.

    An unknown ``code`` (a newer peer) gives ``ServerError`` or ``ClientError`` by the status, so that
    callers can always catch ``ZtsError``.

    >>> type(error_from_wire("model_not_found", "Model not found: x", 404)).__name__
    'ModelNotFound'
    >>> type(error_from_wire("news", "?", 418)).__name__
    'ClientError'
    """
    cls = _BY_CODE.get(code)
    if cls is None:
        cls = ClientError if 400 <= http_status < 500 else ServerError
    return cls(message, http_status=http_status, type_name=type_name)
