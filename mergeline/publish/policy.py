"""The values of a pipeline's `publish.when`."""

from __future__ import annotations

from typing import Literal

PublishWhen = Literal["always", "never", "better_than_parents", "not_worse_than_parents", "after_approval"]
