"""Write `docs/reference/features.md` from the declaration: `python -m schemas.feature_reference`.

A test compares the page with what this module writes, so the page is never older than the declaration.
"""

from pathlib import Path
from typing import Final

from schemas.features import GROUPS, NODE_TYPES, RELATIONS, Feature, Kind, NodeType, Relation, Transform

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference" / "features.md"

_HEAD: Final = """# Features and relations of the graph

Written from `schemas/features.py` by `python -m schemas.feature_reference`; do not edit it here.

One graph is one training state as of its packet's time. `x` of a node type and `edge_attr` of a relation hold the value
channels in the order of these tables, then one mask channel (1 measured, 0 imputed) per feature that has a value channel.
`ids` holds one int64 column per categorical feature: 0 missing, then the registry's index, capacity-1 for a key that the
registry does not know. A multi-hot feature has `width` channels, the last for all that do not fit or are unknown; a share has
`width` channels that sum to 1, likewise, and in its table the list of what is counted (NULL: one without a type). Reverse
relations (`rev_<name>`) carry the same attributes. Sources are in order of preference; `name(sources)` is computed by
`gnn.join.derived.name`.

| transform | channel |
|---|---|
"""

_FORMULAS: Final = {
    Transform.IDENTITY: "x",
    Transform.CLAMP01: "x, clamped to 0..1",
    Transform.CLAMP4: "x, clamped to 0..4",
    Transform.LOG1P: "log(1 + x)",
    Transform.SIGNED_LOG1P: "log(1 + abs(x)) with the sign of x",
    Transform.LOG_VAR: "log10(x + 1e-12)",
    Transform.LOG_Z: "(log(1 + x) - m) / s with the prior fitted on Urza's catalogue; momentum without the logarithm",
    Transform.EWMA: "(x - m) / sqrt(v + 1e-6) with the run's EWMA state before the packet",
    Transform.GRAPH_MAX: "x / max abs(x) over the relation's measured edges of the graph; 0 where that is 0",
    Transform.LOSS_PRIOR: "(x - 0.8) / 0.3",
    Transform.PERCENT: "x / 100, clamped to 0..1",
    Transform.LN_CHANCE: "ln(x / ln C), C = `context.output_classes`; ln(x) if C is missing or at most 1; clamped to -8..4",
    Transform.CLAMP_ABS1: "x, clamped to -1..1",
    Transform.CLAMP_ABS3: "x, clamped to -3..3",
}


def _row(group: NodeType | Relation, feature: Feature) -> str:
    kind = feature.kind.value.replace("_", "-")
    shape = f"{kind} {feature.width}" if feature.channels > 1 else kind
    transform = f"`{feature.transform.value}`" if feature.kind in (Kind.NUMERIC,) else ""
    neutral = f"{feature.neutral:g}" if feature.kind in (Kind.NUMERIC, Kind.FLAG) else ""
    cells = (
        f"`{feature.name}`",
        shape,
        f"`{feature.registry}`" if feature.registry else "",
        transform,
        neutral,
        "mandatory" if feature.mandatory else "",
        feature.system,
        feature.documented_origin,
        f"`{group.key(feature)}`",
    )
    return "| " + " | ".join(cells) + " |"


def _table(group: NodeType | Relation) -> list[str]:
    columns = ("feature", "kind", "registry", "transform", "neutral", "", "system", "sources", "coverage key")
    width = f"`x` {group.width} wide" if isinstance(group, NodeType) else f"`edge_attr` {group.width} wide"
    return [
        f"{group.doc} {width} ({group.value_width} values, {len(group.valued)} masks), {len(group.categorical)} ids; "
        f"table `{group.table}`, family `{group.family}`.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *(_row(group, feature) for feature in group.features),
        "",
    ]


def features_page() -> str:
    """Return the whole page."""
    lines = [f"| `{transform.value}` | {formula} |" for transform, formula in _FORMULAS.items()]
    total = sum(len(group.features) for group in GROUPS)
    lines += ["", f"{total} coverage keys in {len(GROUPS)} families.", "", "## Node types", ""]
    for node in NODE_TYPES:
        lines += [f"### {node.name}", "", *_table(node)]
    lines += ["## Relations", ""]
    for relation in RELATIONS:
        lines += [f"### {relation.source} {relation.name} {relation.target}", "", *_table(relation)]
    return _HEAD + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(features_page(), encoding="utf-8")
