"""Compare a new bundle with the serving one on measured outcomes of a home, for the gate `champion`."""

from pathlib import Path

from lake.store.table_store import TableStore
from schemas.errors import BundleRejected


def challenge_serving(home: Path, tables: TableStore, build_id: str) -> None:
    """Compare a published bundle with the serving one, if that is another build; keep the outcome for the gates."""
    from gnn.bundle import bundle_path, read_bundle, serving
    from gnn.bundle.challenge import Challenge, challenge, is_kept, keep
    from gnn.graph.dataset import GraphDataset

    now = serving(home)
    if now is None or now == build_id or is_kept(home, build_id, now):
        return
    try:
        bundle = read_bundle(bundle_path(home, build_id))
    except BundleRejected:
        return  # promotion reports what is wrong with it
    try:
        champion = read_bundle(bundle_path(home, now))
    except BundleRejected as damage:
        keep(home, build_id, Challenge(now, 0, None, f"the serving bundle can't be read by this code: {damage}"))
        return
    keep(home, build_id, challenge(bundle, champion, GraphDataset.open(home), tables.read("training.examples")))
