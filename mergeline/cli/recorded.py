"""What the commands about records do: follow a model back, send MLflow what it does not have."""

from __future__ import annotations

import argparse
import json

from mergeline.errors import TrackingError


def lineage(options: argparse.Namespace) -> None:
    """Follow a model back, or find what was made from it."""
    from mergeline.pipeline.language import Track
    from mergeline.sources.hub import Hub
    from mergeline.tracking.provenance import descendants, trace
    from mergeline.tracking.provenance_text import (
        descendant_value,
        describe_descendants,
        describe_provenance,
        provenance_value,
    )

    hub, default_uri = Hub(), Track().resolved_uri
    if options.used_by:
        found = descendants(options.model, hub, options.tracking_uri or default_uri)
        values = [descendant_value(merge) for merge in found]
        print(json.dumps(values) if options.json else describe_descendants(options.model, found))
        return
    provenance = trace(options.model, hub, options.tracking_uri, default_uri)
    value = provenance_value(provenance)
    print(json.dumps(value) if options.json else describe_provenance(provenance, hub.url))


def track(options: argparse.Namespace) -> None:
    """List the records that wait for MLflow, or send them."""
    from mergeline import tracking

    results = tracking.replay() if options.replay else []
    waiting = tracking.waiting_records()
    if options.json:
        sent = [{"name": each.record.name, "run_id": each.run.run_id} for each in results if each.run is not None]
        kept = [{"name": record.name, "file": str(record.path), "store": record.address} for record in waiting]
        print(json.dumps({"sent": sent, "waiting": kept}))
    else:
        for each in results:
            if each.run is not None:
                print(f"{each.record.name}: sent to {each.record.address}, run {each.run.run_id}")
        for record in () if options.replay else waiting:
            print(f"{record.name}: waits for {record.address} in {record.path}")
        if not results and not waiting:
            print("No record waits for MLflow.")
    if problems := [f"{each.record.name}: {each.problem}" for each in results if each.problem is not None]:
        raise TrackingError("\n".join(problems))
