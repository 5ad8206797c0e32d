"""BLIP-2's image encoder, in memory only when it is needed: it has 986 of the model's 1,172 million parameters."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import torch
from transformers import Blip2VisionModel


class ImageEncoder:
    """Loads the network when it is first used, and lets go of it when it was not used for long.

    Safe to use from several threads.
    """

    def __init__(self, load: Callable[[], Blip2VisionModel], keep_loaded: float | None = None) -> None:
        """``keep_loaded`` is for how many seconds after its last use the network stays in memory; None: for good."""
        self._load = load
        self._keep_loaded = keep_loaded
        self._lock = threading.Lock()
        self._network: Blip2VisionModel | None = None
        self._users = 0
        self._used_at = 0.0
        self._waiting = False

    @property
    def parameters(self) -> int:
        """How many parameters are in memory."""
        network = self._network
        return 0 if network is None else sum(each.numel() for each in network.parameters())

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Blip2VisionModel]:
        """The network, which stays loaded meanwhile. Raises CheckpointInvalid when it cannot be loaded."""
        with self._lock:
            if self._network is None:
                # Parameters that are made in inference mode could not be used outside of it.
                with torch.inference_mode(mode=False):
                    self._network = self._load()
            network = self._network
            self._users += 1
        try:
            yield network
        finally:
            with self._lock:
                self._users -= 1
                self._used_at = time.monotonic()
                if self._keep_loaded is not None and not self._waiting:
                    self._look_again_in(self._keep_loaded)

    def _look_again_in(self, seconds: float) -> None:
        self._waiting = True
        timer = threading.Timer(seconds, self._unload_if_idle)
        timer.daemon = True
        timer.start()

    def _unload_if_idle(self) -> None:
        assert self._keep_loaded is not None
        with self._lock:
            left = self._used_at + self._keep_loaded - time.monotonic()
            if self._users or left > 0:
                self._look_again_in(left if left > 0 else self._keep_loaded)
                return
            self._waiting = False
            self._network = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
