"""The server's refusals: a status and one sentence, which repeats nothing that was sent."""

from headstart.base.errors import HeadstartError


class Refusal(HeadstartError, ValueError):
    """A request that is not answered. status: of HTTP. headers: more of the reply's."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Disconnected(HeadstartError, ConnectionError):
    """The client went away before its answer."""


def busy(seconds: float) -> Refusal:
    """Return the refusal of a full queue. seconds: after which it is worth trying again."""
    wait = str(max(1, round(seconds)))
    return Refusal(503, "All places of the queue are taken: try again later.", Retry_After=wait)


def not_ready() -> Refusal:
    return Refusal(503, "The model is still being loaded: try again later.", Retry_After="1")


def no_such_model() -> Refusal:
    return Refusal(404, "There is no model of that name: /v2 lists the models.")
