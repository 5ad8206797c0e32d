import dataclasses
import ipaddress
from pathlib import Path

from indexer.errors import ServiceError

DEFAULT_PORT = 8765
PROBES = ("/healthz", "/readyz")
"""Paths that are answered without a token and however busy the service is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What a service serves, where, and how much of it.

    Raises ServiceError when it would listen off the loopback interface without a token.
    """

    library: Path
    """Directory of the library; created when there is none."""
    model: str | None = None
    """Name or path of the model; None: the one the library is searched with, else "compact"."""
    device: str = "auto"
    keep_loaded: float | None = None
    """For how many seconds a large image encoder stays in memory after it was needed; None: for good."""
    host: str = "127.0.0.1"
    """Address or name to listen on."""
    port: int = DEFAULT_PORT
    """0: one that is free."""
    token: str | None = dataclasses.field(default=None, repr=False)
    """Bearer token that every request must carry; required off the loopback interface."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which clients reach the service, such as a reverse proxy's."""
    allowed_folders: tuple[Path, ...] | None = None
    """Folders that may be indexed over HTTP, with all below them, beside those that the library has already. None: the
    home folder of the service's user on the loopback interface, nothing off it."""
    max_body_bytes: int = 32 * 2**20
    """Largest form: an uploaded photo."""
    max_json_bytes: int = 2**20
    """Largest body of any other kind."""
    max_upload_pixels: int = 100_000_000
    """Largest uploaded photo, once it is decoded."""
    decode_seconds: float = 30
    """Longest that one picture of a request may take to decode."""
    client_seconds: float = 60
    """Longest that a client may keep a connection waiting: for a request, for its body, or to read on."""
    connections: int = 512
    """Connections at once; a further one takes the place of the one that has gone longest without a request."""
    requests_at_once: int = 256
    """Requests of all kinds that are taken at once; further ones are refused with 503."""
    bytes_at_once: int = 512 * 2**20
    """Bodies of the requests that are taken at once, together; further ones are refused with 503. An upload is kept on
    the disk until it is whole."""
    watchers: int = 64
    """Clients that may follow one job at once; further ones are refused with 503."""
    search_threads: int = 2
    """Searches that run at once. The model uses all cores in each, so more of them only wait for each other."""
    waiting_searches: int = 32
    """Searches that may wait for a thread; further ones are refused with 503."""

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise ServiceError("The token is empty. Give a long random one, or none to serve this machine only.")
        if self.token is None and not self.on_loopback:
            raise ServiceError(
                f"Refusing to listen on {self.host} without a token: everyone who reaches that address could see every "
                f"photo. Give a token, or listen on 127.0.0.1."
            )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def indexable(self) -> tuple[Path, ...]:
        """``allowed_folders``, or what None stands for."""
        if self.allowed_folders is not None:
            return self.allowed_folders
        try:
            return (Path.home(),) if self.on_loopback else ()
        except RuntimeError:  # its user has none, as in some containers
            return ()


def is_loopback(host: str) -> bool:
    """Whether a host name or address (without brackets) is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
