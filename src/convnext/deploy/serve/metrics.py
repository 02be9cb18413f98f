"""What the server tells Prometheus about itself."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TOGETHER = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server. Their names begin with `convnext_`."""

    def __init__(self, waiting: Callable[[], float], held: Callable[[], float]):
        """`waiting`: how many images are not answered yet; `held`: the bytes of their requests."""
        own = self.registry = CollectorRegistry()
        self.requests = Counter("convnext_requests", "Requests", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "convnext_request_seconds", "Time of a request", ["path"], buckets=_SECONDS, registry=own
        )
        self.images = Counter("convnext_images", "Images, by what came of them", ["model", "outcome"], registry=own)
        self.batches = Histogram(
            "convnext_batch_images", "Images that passed a network together", ["model"], buckets=_TOGETHER, registry=own
        )
        self.network = Histogram(
            "convnext_network_seconds", "Time of a batch in its network", ["model"], buckets=_SECONDS, registry=own
        )
        self.renewals = Counter("convnext_renewals", "New weights taken", ["model", "outcome"], registry=own)
        Gauge("convnext_waiting_images", "Images that are not answered yet", registry=own).set_function(waiting)
        Gauge("convnext_held_bytes", "Bytes of the requests that are not answered yet", registry=own).set_function(held)

    def text(self) -> tuple[bytes, str]:
        """All of them in Prometheus' own form, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
