"""Materializations launched through the GraphQL of a really started webserver."""

import pytest

from tests.browser.webserver import Webserver

_PARTITIONS = """
query { assetNodeOrError(assetKey: {path: ["tolaria", "system_state"]}) {
  ... on AssetNode { partitionStats { numPartitions } } } }
"""
_NODES = """
query { assetNodes { assetKey { path } groupName description kinds owners { ... on TeamAssetOwner { team } } } }
"""
_ROWS = """
query { assetOrError(assetKey: {path: ["urza", "blueprint"]}) { ... on Asset { assetMaterializations(limit: 1) {
  metadataEntries { label ... on IntMetadataEntry { intValue } } tags { key value } } } } }
"""


def test_the_code_location_loads_with_groups_descriptions_kinds_and_owners(webserver: Webserver) -> None:
    nodes = webserver.query(_NODES)["assetNodes"]
    assert {node["groupName"] for node in nodes} == {
        "upstream", "registries", "normalization", "features", "graphs", "model", "bundle", "telemetry",
    }  # fmt: skip
    bare = [node["assetKey"]["path"] for node in nodes if not (node["description"] and node["kinds"] and node["owners"])]
    assert bare == []


def test_a_materialization_launched_through_graphql_ends_well(webserver: Webserver) -> None:
    assert webserver.materialize(job="ingest_exports") == "SUCCESS"
    assert webserver.query(_PARTITIONS)["assetNodeOrError"]["partitionStats"]["numPartitions"] > 0
    assert webserver.materialize("urza/blueprint", "simic/registry_snapshot", job="everything") == "SUCCESS"
    (event,) = webserver.query(_ROWS)["assetOrError"]["assetMaterializations"]
    entries = {entry["label"]: entry.get("intValue") for entry in event["metadataEntries"]}
    assert entries["dagster/row_count"] > 0
    assert any(tag["key"] == "dagster/data_version" and tag["value"] for tag in event["tags"])
    assert webserver.materialize(job="refresh_registries") == "SUCCESS"


@pytest.mark.parametrize("job", ["everything", "ingest_exports", "rebuild_after_kasmina", "rebuild_after_urabrask"])
def test_every_job_is_there(webserver: Webserver, job: str) -> None:
    found = webserver.query(
        'query { repositoryOrError(repositorySelector: {repositoryLocationName: "tamiyo_assets", '
        'repositoryName: "__repository__"}) { ... on Repository { jobs { name } } } }'
    )
    assert job in {each["name"] for each in found["repositoryOrError"]["jobs"]}
