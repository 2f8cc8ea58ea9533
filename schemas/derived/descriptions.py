"""What each column of a derived table holds, with its unit: shown in the UI beside the column.

Kept beside the Arrow schemas, not in them: schemas are compared, stored and digested, prose is not. A test finds every column
without a description.
"""

from collections.abc import Mapping
from typing import Final

from schemas.features import EWMA_METRICS

RUN: Final = "Training run of the row."
PACKET: Final = "Packet of tolaria.system_state that the row belongs to; unique in its training run."
TIME: Final = "Time of the packet [ns since 1970 UTC]."
SYSTEM: Final = "Upstream system to ask for what is missing."
KEY: Final = "Coverage key, <node type or relation>.<feature>."
FAMILY: Final = "Family of features: node.<type> or edges.<relation>."
MEASURED: Final = "Elements with a measured value."
ELEMENTS: Final = "Elements of the graphs of the training run."
SPLIT: Final = "Split of the host: train, validation, test or held_out."

# identity columns of `features.*`
IDENTITY: Final[Mapping[str, str]] = {
    "training_run_id": RUN,
    "packet_id": PACKET,
    "timestamp_ns": TIME,
    "element_id": "Id of the node; unique in its packet and node type.",
    "source_id": "Id of the node that the edge leaves.",
    "target_id": "Id of the node that the edge enters.",
    "source_ordinal": "Number of that node among those of its type in the graph, from 0.",
    "target_ordinal": "Number of that node among those of its type in the graph, from 0.",
    "ordinal": "Order of the node or edge in its graph, from 0.",
    "placeholder": "Whether a guard tensor stands in place of the real element.",
    "host_blueprint_id": "Blueprint of the host that the packet names.",
    "packet_order": "Order of the packet among those of its training run and time, from 0.",
    **{
        f"{metric}__{part}": f"EWMA {what} of {metric} before the packet."
        for metric in EWMA_METRICS
        for part, what in (("mean", "mean"), ("var", "variance"), ("count", "number of observations"))
    },
}

# columns that ingest adds to every contract table
PROVENANCE: Final[Mapping[str, str]] = {
    "arrival": "Sequence number of the arrival of the row's export; orders rows of one key that have no event time.",
    "non_finite": "Numbers of the record that were NaN or infinite, NULL here: fields by column, map entries as <map>.<key>.",
    "export_digest": "SHA-256 (hex) of the export that the kept copy was read from.",
    "position": "Byte offset, line or row of the record in its export.",
}

REGISTRY: Final[Mapping[str, str]] = {
    "key": "What upstream sent, as text.",
    "index": "Row of the embedding, which never moves. 0 is missing, capacity - 1 is unknown.",
    "retired": "Whether the key vanished upstream or an operator retired it; it keeps its index.",
}

_COUNTS: Final = {
    "measured": MEASURED,
    "elements": ELEMENTS,
    "ratio": "measured / elements, from 0 to 1; NULL without elements.",
}
_LABEL: Final = {
    "training_run_id": RUN,
    "packet_id": "Packet in whose state the command was given.",
    "seed_id": "Seed that the command addressed.",
    "kernel": "Kernel that was grafted: its blueprint id.",
    "horizon": "Steps from the graft to the measurement [training steps].",
}

COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "features.dangling": {
        "training_run_id": RUN,
        "packet_id": PACKET,
        "timestamp_ns": TIME,
        "family": FAMILY,
        "reference": "What the packet, or the graph of its host, names and the graph lacks.",
        "placeholders": "Above 0: no reference, but that many guard tensors in place of missing elements.",
    },
    "coverage.by_key": {
        "training_run_id": RUN,
        "key": KEY,
        "family": FAMILY,
        "system": SYSTEM,
        "mandatory": "Whether the key must be measured everywhere.",
        **_COUNTS,
    },
    "coverage.by_family": {"training_run_id": RUN, "family": FAMILY, **_COUNTS},
    "coverage.gaps": {
        "training_run_id": RUN,
        "key": "Coverage key; a family for references that name nothing and for placeholders.",
        "system": SYSTEM,
        "missing": "Elements without a measured value; 0 if the run has no such element at all.",
        "elements": ELEMENTS,
        "reason": "Why the values are missing, in words.",
        "since_timestamp_ns": "Time of the first packet of the run with this gap [ns since 1970 UTC].",
    },
    "norms.ewma": {
        "training_run_id": RUN,
        "metric": "Step metric: loss, gradient_norm, samples_per_s or hook_latency_ms.",
        "mean": "Exponentially weighted mean [unit of the metric].",
        "var": "Exponentially weighted variance [unit of the metric, squared].",
        "count": "Observations of the metric in the run.",
        "timestamp_ns": "Time of the run's newest observation of the metric [ns since 1970 UTC]; NULL if there is none.",
    },
    "norms.current": {
        "name": "Step metric with an EWMA state, or catalogue number with a fitted prior.",
        "mean": "Mean [unit of the metric; after the transform for priors].",
        "var": "Variance [square of the unit of the mean].",
        "count": "Observations of the run that measured the metric last; NULL for priors.",
        "transform": "log1p or identity, applied before mean and variance; NULL for step metrics.",
        "training_run_id": "Run of the newest observation; NULL for priors and before the first observation.",
        "timestamp_ns": "Time of the newest observation [ns since 1970 UTC]; NULL for priors and before the first observation.",
    },
    "training.examples": {
        **_LABEL,
        "layer_id": "Layer of the seed, as the field reports say; NULL if none does.",
        "u": "Mean uplift over the replicates on validation data [nats of loss]; above 0 if the graft helped.",
        "u_test": "Mean uplift on the hosts' test data [nats of loss]; NULL if it was not measured.",
        "se": "Standard error of u [nats]; NULL if it is not reported and there are no replicates to estimate it.",
        "replicates": "Field reports that the row is the mean of.",
        "u_first": "Uplift of the first replicate [nats].",
        "u_second": "Uplift of the second replicate [nats]; NULL if there is one only.",
        "risk_class": "Worst risk class of the replicates: none, low, medium, high or critical.",
        "blending_method": "Most frequent blending method of the replicates; NULL if none is named.",
        "by_method": "Mean uplift by blending method [nats].",
        "weight": "Weight in the loss: 1 / (se^2 + tau^2) [1 / nats^2].",
        "split": SPLIT,
        "host": "Host network that was trained; hosts, not rows, are split.",
        "data_set": "Data set of the host.",
        "architecture": "Architecture of the host.",
    },
    "training.predictions": {
        **_LABEL,
        "model": "Model that predicts: `model`, or the name of a baseline.",
        "split": SPLIT,
        "value": "Predicted uplift [nats].",
        "value_low": "Lower bound of the calibrated interval of the uplift [nats]; NULL if the model states no deviation.",
        "value_high": "Upper bound of the calibrated interval of the uplift [nats]; NULL if the model states no deviation.",
        **{
            f"risk_{name}": f"Probability of risk class {name}, after temperature scaling; NULL if the model predicts no risk."
            for name in ("none", "low", "medium", "high", "critical")
        },
        "policy_logit": "Score that orders the (seed, kernel) pairs of a packet; the highest is the model's choice.",
    },
    "training.evaluation": {
        "model": "Model that is evaluated: `model`, or the name of a baseline.",
        "split": SPLIT,
        "metric": "Name of the figure; gap_closed/<kind>=<group> is the gap closed on one group of hosts.",
        "value": "The figure [unit of the metric]; NULL if it can't be computed.",
        "low": "Lower bound of its bootstrap interval over hosts; NULL if there is none.",
        "high": "Upper bound of its bootstrap interval over hosts; NULL if there is none.",
    },
    "training.calibration": {
        "bin": "Number of the bin of confidence, from 0.",
        "confidence": "Mean confidence of the risk head in the bin, from 0 to 1; NULL if the bin is empty.",
        "accuracy": "Share of right predictions in the bin, from 0 to 1; NULL if the bin is empty.",
        "count": "Examples in the bin.",
        "stage": "before or after temperature scaling.",
        "split": SPLIT,
    },
    "telemetry.feature_coverage": {
        "kind": "metric or event.",
        "name": "Published name of the signal.",
        "value": "Value of the signal [see unit].",
        "unit": "Unit of the value.",
        "level": "WARNING or CRITICAL of an event; NULL for a metric.",
        "attributes": "Further attributes of the signal, by name.",
    },
    "operations.versions": {
        "table": "Table, <schema>.<table>.",
        "training_run": "Training run whose rows the digest is of; NULL for the whole table.",
        "digest": "SHA-256 (hex) of the content of the rows, whatever their order and files.",
        "rows": "Rows of the table, or of the training run in it.",
    },
}
