"""Declare the configuration of the network and of its training: frozen, validated, and part of every build id."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.kernels import KERNELS
from schemas.splits import HELD_OUT_DATA_SET

MODEL_NAME: Final = "tamiyo_gnn_v1"
RISK_CLASSES: Final[tuple[str, ...]] = ("none", "low", "medium", "high", "critical")
BLENDING_METHODS: Final[tuple[str, ...]] = ("linear", "cosine", "warmup_hold", "sigmoid")
REQUIRED_HEADS: Final[tuple[str, ...]] = ("policy", "value", "risk")
OPTIONAL_HEADS: Final[tuple[str, ...]] = ("params", "schedule", "breaker", "blending", "telemetry")
NUM_KERNELS: Final = len(KERNELS)
MIN_VALUE: Final = 0.0  # a graft is commanded only if its utility exceeds that of no graft by more than this
MAX_HARM: Final = 0.25  # and its probability of harm is at most this

Positive = Annotated[int, Field(gt=0, le=65536)]
Depth = Annotated[int, Field(gt=0, le=64)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """Widths and depths of TamiyoGNN; all other dimensions follow from the declaration of the features.

    The message-passing rounds are shared. `members` heads, each of two layers of width `head_hidden`, read their output, and
    their answers are averaged. The answer for a pair of site and kernel is the dot product of `rank` numbers of each.
    """

    hidden: Positive = 32
    activation_hidden: Positive = 16
    out: Positive = 32
    sage_layers: int = Field(default=2, ge=0, le=64)
    gat_layers: Depth = 2
    heads: Positive = 4
    dropout: Share = 0.2
    embedding: Positive = 4
    identity_embedding: Positive = 2
    compile_embedding: Positive = 16
    telemetry_embedding: Positive = 64
    members: Depth = 6
    head_hidden: Positive = 64
    rank: Positive = 16
    input_dropout: Share = 0.1
    head_dropout: Share = 0.3
    messages: bool = True


class LossWeights(_Frozen):
    """Weights of the heads in the training loss."""

    risk: float = Field(default=0.40, ge=0.0)
    value: float = Field(default=0.35, ge=0.0)
    policy: float = Field(default=0.25, ge=0.0)
    blending: float = Field(default=0.05, ge=0.0)


class TrainingConfig(_Frozen):
    """How the model is trained and judged; `tau` is the noise (in log loss) of one measured uplift.

    `horizon` is the number of steps after a graft at which outcomes are learned and judged. `held_out_data_set` names the data
    set that is kept out whole as the harder split. The message-passing rounds are trained for `rounds_epochs` and then frozen,
    so that their output is computed once; the heads are trained for all `epochs`. `steps` bounds epochs x batches, so that
    training time does not grow with the number of hosts. Uplifts are clipped at `reward_clip`. `choice_tau` is the temperature
    of the choice that the policy learns. `average` is the decay of the running average of the weights, which is what is kept.
    `bootstrap` is the number of draws of each confidence interval. `boosting` and `gaussian_process` also fit these baselines,
    the former with `boosting_rounds` trees. `no_messages` also trains the ablation without messages. `learning_curve` also
    trains on each of these shares of the hosts.
    """

    seed: int = 20261123
    tau: float = Field(default=0.06, gt=0.0)
    choice_tau: float = Field(default=0.05, gt=0.0)
    reward_clip: float = Field(default=0.25, gt=0.0)
    horizon: Positive = 100
    held_out_data_set: str | None = HELD_OUT_DATA_SET
    batch_graphs: Positive = 48
    epochs: Positive = 120
    rounds_epochs: int = Field(default=6, ge=0)
    steps: Positive = 4000
    learning_rate: float = Field(default=3e-3, gt=0.0)
    weight_decay: float = Field(default=0.1, ge=0.0)
    clip: float = Field(default=1.0, gt=0.0)
    average: Share = 0.98
    id_dropout: Share = 0.1
    identity_dropout: Share = 0.5
    threads: Positive = 1
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_seconds: float = Field(default=15.0, ge=0.0)
    interval: float = Field(default=0.90, gt=0.0, lt=1.0)
    bootstrap: Positive = 2000
    boosting: bool = True
    boosting_rounds: Positive = 400
    gaussian_process: bool = True
    no_messages: bool = False
    learning_curve: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = ()
    weights: LossWeights = LossWeights()
    model: ModelConfig = ModelConfig()


class TrainingLaunch(_Frozen):
    """Where a training runs. It is not part of the build id: it changes no weight.

    `where` is `in_process` for the process of the Dagster run, or `pipes` for a process of its own, started through Dagster
    Pipes: `PREFIX... PYTHON -m gnn.remote DIRECTORY`, with torchrun if there are several `processes`. Trainings are shared
    among processes whole, so the weights are the same. `prefix` is a command that starts another one elsewhere, such as
    `["ssh", "gpu-host"]`. `python` is the interpreter there; unset, that of the run.
    """

    where: Literal["in_process", "pipes"] = "in_process"
    processes: int = Field(default=1, ge=1, le=64)
    prefix: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    python: str | None = Field(default=None, min_length=1)
