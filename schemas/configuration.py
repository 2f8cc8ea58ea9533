"""Configuration of the network and of its training: frozen, validated, and part of every build id."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from schemas.kernels import KERNELS
from schemas.splits import HELD_OUT_DATA_SET

MODEL_NAME: Final = "tamiyo_gnn_v1"
RISK_CLASSES: Final[tuple[str, ...]] = ("none", "low", "medium", "high", "critical")
BLENDING_METHODS: Final[tuple[str, ...]] = ("linear", "cosine", "warmup_hold", "sigmoid")
REQUIRED_HEADS: Final[tuple[str, ...]] = ("policy", "value", "risk")
OPTIONAL_HEADS: Final[tuple[str, ...]] = ("params", "schedule", "breaker", "blending", "telemetry")
NUM_KERNELS: Final = len(KERNELS)
HARMFUL: Final = RISK_CLASSES.index("high")  # this class and the worse ones are harm
MIN_VALUE: Final = 0.0  # a graft is commanded if its expected uplift is above this
MAX_HARM: Final = 0.25  # and its probability of harm at most this

Positive = Annotated[int, Field(gt=0, le=65536)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """Widths and depths of TamiyoGNN (`model.md`'s numbers are the defaults); every other dimension is declared."""

    hidden: Positive = 256
    activation_hidden: Positive = 128
    out: Positive = 128
    sage_layers: int = Field(default=2, ge=0)
    gat_layers: Positive = 2
    heads: Positive = 4
    dropout: Share = 0.2
    embedding: Positive = 8
    identity_embedding: Positive = 16
    compile_embedding: Positive = 16
    telemetry_embedding: Positive = 64
    head_hidden: Positive = 128
    messages: bool = True


class LossWeights(_Frozen):
    """Weights of the heads in the training loss."""

    risk: float = Field(default=0.40, ge=0.0)
    value: float = Field(default=0.35, ge=0.0)
    policy: float = Field(default=0.25, ge=0.0)
    blending: float = Field(default=0.05, ge=0.0)


class TrainingConfig(_Frozen):
    """How the model is trained and judged; `tau` is the noise of one measured uplift (in log loss).

    `horizon` names the steps after a graft whose outcomes are learned and judged. `held_out_data_set` names the data set that
    is kept out whole as the harder split. `steps` bounds epochs x batches, so that training time stays
    bounded however many hosts are recorded; `average` is the decay of the averaged weights that are kept.
    `bootstrap` counts the draws of every interval. `boosting` and `gaussian_process` fit those baselines, with
    `boosting_rounds` trees; `no_messages` trains the ablation too, `learning_curve` the recipe on these shares of the hosts.
    """

    seed: int = 20261123
    tau: float = Field(default=0.06, gt=0.0)
    horizon: Positive = 100
    held_out_data_set: str | None = HELD_OUT_DATA_SET
    batch_graphs: Positive = 16
    epochs: Positive = 40
    steps: Positive = 400
    patience: Positive = 12
    learning_rate: float = Field(default=1e-3, gt=0.0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    clip: float = Field(default=1.0, gt=0.0)
    average: Share = 0.98
    id_dropout: Share = 0.1
    identity_dropout: Share = 0.5
    threads: Positive = 1
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
