"""A Hub on this machine: the protocol of huggingface.co over loopback HTTP, with contents on disk.

It answers what our tests and demonstration ask through huggingface_hub, hf_xet, transformers, datasets and lm-eval, so
that they run the real clients without a network. Quotas, moderation, pull requests and search are not there.

    with LocalHub(folder) as hub:
        HfApi(endpoint=hub.endpoint, token=LOCAL_TOKEN).create_repo("mergeline/model")
"""

from deployments.loopback_hub.faults import Fault
from deployments.loopback_hub.server import LOCAL_TOKEN, LocalHub

__all__ = ["LOCAL_TOKEN", "Fault", "LocalHub"]
