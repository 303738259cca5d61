"""What can go wrong, with the status code and the words of the real server."""

from __future__ import annotations


class ApiError(Exception):
    """An answer that is not a success. `plain`: the real server sends it as text, not in its envelope."""

    def __init__(self, status: int, message: str, plain: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.plain = status, message, plain


def not_found(what: str, plain: bool = False) -> ApiError:
    return ApiError(404, f"Not found: {what}", plain)


def no_collection(name: str) -> ApiError:
    return not_found(f"Collection `{name}` doesn't exist!")


def collection_exists(name: str) -> ApiError:
    return ApiError(409, f"Wrong input: Collection `{name}` already exists!")


def wrong_input(message: str) -> ApiError:
    return ApiError(400, f"Wrong input: {message}")


def bad_request(message: str) -> ApiError:
    return ApiError(400, f"Bad request: {message}")


def bad_json(message: str) -> ApiError:
    return ApiError(400, f"Format error in JSON body: {message}")


def forbidden(message: str, plain: bool = False) -> ApiError:
    return ApiError(403, f"Forbidden: {message}", plain)


def internal(message: str) -> ApiError:
    return ApiError(500, f"Service internal error: {message}")


def from_engine(error: Exception) -> ApiError:
    """The engine tells kinds of errors apart only by their text."""
    text = str(error)
    if text.startswith("No point with id"):
        return not_found(f"{text} found")
    if text.startswith("Service runtime error: "):
        return internal(text.removeprefix("Service runtime error: "))
    return wrong_input(text.splitlines()[0] if text else type(error).__name__)
