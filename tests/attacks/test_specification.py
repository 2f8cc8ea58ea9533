"""Every rule of `docs/bundle.md` names tests that fail without it, and its limits are those of the code."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from gnn.bundle.members import ALL, MANIFEST, size_bound
from schemas.configuration import ModelConfig

READ, PROMOTION = "tests/gnn/bundle/test_write_read.py", "tests/gnn/bundle/test_promotion.py"
ATTACKS, MEMBERS = "tests/attacks/test_bundles.py", "tests/attacks/test_bundle_members.py"
POLICY = "tests/gnn/online/test_policy.py"
RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "B1": (
        (READ, "test_extra_members_are_refused_wherever_they_stand"),
        (READ, "test_every_member_must_be_its_own_plain_whole_file"),
        (READ, "test_all_faults_of_the_files_are_listed_at_once"),
        (ATTACKS, "test_nested_directories_are_not_walked"),
    ),
    "B2": (
        (READ, "test_every_member_must_be_its_own_plain_whole_file"),
        (READ, "test_a_linked_registry_directory_is_refused"),
        (READ, "test_current_is_resolved_once"),
        (ATTACKS, "test_links_out_of_the_bundle_are_refused"),
        (ATTACKS, "test_a_socket_or_a_device_is_no_member"),
        (ATTACKS, "test_a_hard_link_is_a_plain_file_whose_bytes_are_checked"),
    ),
    "B3": ((ATTACKS, "test_a_sparse_giant_is_refused_before_it_is_read"),),
    "B4": ((MEMBERS, "test_the_digest_of_the_manifest_has_one_form"),),
    "B5": (
        (MEMBERS, "test_paths_in_the_manifest_are_names_of_no_member"),
        (MEMBERS, "test_digests_that_lie_are_found"),
        (MEMBERS, "test_sizes_that_lie_are_found"),
    ),
    "B6": (
        (MEMBERS, "test_flipped_bytes_are_found_and_their_member_named"),
        (MEMBERS, "test_every_flipped_byte_of_a_bundle_is_found"),
    ),
    "B7": ((MEMBERS, "test_json_that_is_not_strict_is_refused"),),
    "B8": (
        (READ, "test_a_resealed_manifest_with_another_build_id_is_refused"),
        (READ, "test_the_build_id_follows_the_content_alone"),
    ),
    "B9": ((READ, "test_a_mix_of_builds_is_refused"), (MEMBERS, "test_parts_of_another_build_are_all_named")),
    "B10": (
        (READ, "test_weights_that_do_not_fit_the_network_are_listed"),
        (MEMBERS, "test_weights_of_another_type_are_named"),
        (MEMBERS, "test_a_manifest_that_lies_about_the_weights_is_refused"),
        (MEMBERS, "test_every_weight_must_be_finite"),
    ),
    "B11": (
        (READ, "test_a_manifest_that_breaks_its_format_is_refused"),
        (MEMBERS, "test_figures_of_another_form_are_refused"),
        (MEMBERS, "test_a_network_without_bounds_is_refused_before_it_is_made"),
    ),
    "B12": (
        (ATTACKS, "test_a_pickle_in_any_member_is_data"),
        (ATTACKS, "test_nothing_is_unpickled_on_the_way_to_a_decision"),
        (ATTACKS, "test_no_module_of_the_loading_path_can_unpickle"),
    ),
    "B13": (
        (ATTACKS, "test_members_are_read_once_and_what_was_checked_is_what_is_used"),
        (ATTACKS, "test_each_member_is_opened_exactly_once"),
    ),
    "B14": (
        (PROMOTION, "test_golden_outputs_are_recomputed"),
        (MEMBERS, "test_golden_graphs_that_lie_are_found_by_preflight"),
    ),
    "B15": (
        (PROMOTION, "test_every_mismatch_with_the_code_is_listed_at_once"),
        (MEMBERS, "test_heads_that_the_code_does_not_know_are_a_mismatch"),
    ),
    "B16": ((PROMOTION, "test_growth_of_a_registry_is_compatible_and_a_moved_index_is_not"),),
    "B17": (
        (PROMOTION, "test_a_live_batch_of_another_layout_is_named"),
        (POLICY, "test_a_swap_is_refused_if_a_recent_live_graph_is_not_answered"),
    ),
    "B18": (
        (PROMOTION, "test_outputs_say_whether_anything_trained_them"),
        (POLICY, "test_outputs_that_nothing_trained_are_not_offered"),
    ),
    "B19": (
        (READ, "test_a_damaged_bundle_of_the_build_is_replaced"),
        (READ, "test_the_same_build_gives_the_same_bytes_and_is_written_once"),
        ("tests/crash/test_bundles.py", "test_a_bundle_appears_whole_or_not_at_all"),
    ),
    "B20": (
        (PROMOTION, "test_promotion_moves_current_and_writes_it_down"),
        (PROMOTION, "test_a_failed_gate_leaves_the_old_bundle_serving"),
        ("tests/crash/test_bundles.py", "test_current_is_the_old_bundle_or_the_new_one"),
    ),
}


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "bundle.md").read_text(encoding="utf-8")


def test_every_rule_has_tests_and_every_test_is_there(repository: Path, text: str) -> None:
    assert re.findall(r"^\| (B\d+) \|", text, flags=re.MULTILINE) == list(RULES)
    for rule, tests in RULES.items():
        assert tests, rule
        for file, name in tests:
            defined = {
                node.name for node in ast.parse((repository / file).read_text()).body if isinstance(node, ast.FunctionDef)
            }
            assert name in defined, f"{rule}: {file} has no {name}"


def test_the_limits_are_those_of_the_code(text: str) -> None:
    units = {"bytes": 1, "MiB": 1 << 20, "GiB": 1 << 30}
    rows = re.findall(r"^\| (.+?) \| (\d+) (bytes|MiB|GiB)(?: each)? \|$", text, flags=re.MULTILINE)
    stated = {name: int(count) * units[unit] for what, count, unit in rows for name in re.findall(r"`(.+?)`", what)}
    stated["tamiyo_gnn_v1.pt"] = stated.pop(".pt")
    (rest,) = [int(count) * units[unit] for what, count, unit in rows if what == "another registry file"]
    assert len(rows) == 7 and MANIFEST in stated
    assert {name: size_bound(name) for name in ALL} == {name: stated.get(name, rest) for name in ALL}
    for change in ({"hidden": 65_536}, {"sage_layers": 64}, {"gat_layers": 64}, {"members": 64}):
        ModelConfig(**change)
        with pytest.raises(ValidationError):
            ModelConfig(**{name: value + 1 for name, value in change.items()})
