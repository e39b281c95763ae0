"""A Hub on this machine: the protocol of huggingface.co over loopback HTTP, contents on disk.

It answers what huggingface_hub, transformers, datasets, lm-eval and the ``hf`` command ask, so that a demonstration or
a test exercises the real clients without a network. It is not a stand-in for the service's quotas, moderation or speed.

    with LocalHub(folder) as hub:
        HfApi(endpoint=hub.endpoint, token=LOCAL_TOKEN).create_repo("mergeline/model")
"""

from deployments.loopback_hub.faults import Fault
from deployments.loopback_hub.server import LOCAL_TOKEN, LocalHub, RecordedRequest

__all__ = ["LOCAL_TOKEN", "Fault", "LocalHub", "RecordedRequest"]
