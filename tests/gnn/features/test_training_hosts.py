"""Which hosts count as training hosts."""

import pyarrow as pa

from gnn.norms.priors import training_hosts
from schemas.splits import data_set_of, is_published_on

HOSTS = [f"host-{number}" for number in range(40)]


def packets(rows: list[tuple[str | None, str | None]]) -> dict[str, pa.Table]:
    hosts, names = zip(*rows, strict=True) if rows else ((), ())
    columns = {"blueprint_id": pa.array(hosts, pa.string()), "experiment_name": pa.array(names, pa.string())}
    return {"tolaria.system_state": pa.table(columns)}


def test_training_hosts_are_all_but_those_of_bucket_7_and_of_the_held_out_data_set() -> None:
    rows = [(host, f"{'names' if number % 2 else 'digits'}/mlp") for number, host in enumerate(HOSTS)] * 2
    training = {host for host in HOSTS if is_published_on(host)}
    assert training_hosts(packets([*rows, (None, "digits/mlp")]), None) == training
    kept = training_hosts(packets(rows), "names")
    assert kept is not None and kept == training & set(HOSTS[::2]) and kept < training


def test_without_named_hosts_there_are_no_training_hosts_to_speak_of() -> None:
    assert training_hosts(packets([]), "names") is None
    assert training_hosts(packets([(None, "digits/mlp"), ("", None)]), "names") is None


def test_a_host_without_an_experiment_is_of_no_data_set() -> None:
    assert [data_set_of(name) for name in ("digits/mlp", "digits", "", None)] == ["digits", "digits", None, None]
    assert training_hosts(packets([(host, None) for host in HOSTS]), "names") == {h for h in HOSTS if is_published_on(h)}
