"""The plain sections of a recipe: settings that belong to no part."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from diffgrm.foundation.meant import as_meant
from diffgrm.foundation.schema import OnlyWith, ordinary

SHARDED = ("fsdp", "deepspeed")  # strategies of which no process holds all weights

Seed = Annotated[int, BeforeValidator(lambda value: as_meant(value, int)), Field(ge=0, lt=2**31 - 2000)]


class Section(BaseModel):
    """A group of plain settings.

    Attributes:
        only_with: settings that do nothing but where another one has some value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    only_with: ClassVar[OnlyWith] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        return as_meant(value, cls.model_fields[str(info.field_name)].annotation)

    @field_validator("*")
    @classmethod
    def _check_numbers(cls, value: Any) -> Any:
        try:
            return ordinary(value)
        except ValueError as error:
            raise PydanticCustomError("number", str(error)) from error  # type: ignore[arg-type]


class DataSettings(Section):
    """Which events are held out."""

    only_with: ClassVar[OnlyWith] = (
        *(
            (key, "split", ("temporal",))
            for key in ("validation_share", "test_share", "validation_from", "test_from", "target", "cold_targets")
        ),
        ("validation_share", "validation_from", (None,)),
        ("test_share", "test_from", (None,)),
    )

    split: Literal["leave_one_out", "temporal", "validation_only"] = Field(
        "leave_one_out",
        description="leave_one_out: last event of a user is test, the one before validation; temporal: two cuts in time; "
        "validation_only: last event is validation and nothing is kept for test (for a model that goes to production)",
    )
    validation_share: float = Field(0.1, gt=0, lt=1, description="temporal: share of events between the two cuts")
    test_share: float = Field(0.1, gt=0, lt=1, description="temporal: share of events after the second cut")
    validation_from: str | None = Field(
        None, description="temporal: the first cut as a time, written as timestamps are, in place of a share"
    )
    test_from: str | None = Field(
        None, description="temporal: the second cut as a time, such as 2014-05-13 or 1399939200, in place of a share"
    )
    target: Literal["all", "last", "successive"] = Field(
        "all",
        description="temporal: all: one list against all that a user met after the cut; last: their last event only; "
        "successive: every event after the cut, each with what came before it as its history",
    )
    cold_targets: Literal["keep", "drop"] = Field(
        "keep", description="temporal: events of items without training events: they are targets too, or are not"
    )

    @field_validator("validation_from", "test_from", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, datetime.date):
            return value.isoformat()
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class SemanticIdSettings(Section):
    """What happens when two items get the same digits."""

    collisions: Literal["reassign", "share", "extra_digit"] = Field(
        "reassign",
        description="reassign: every item its own SID (fewest items moved, least extra error); share: several items may "
        "stand behind one SID; extra_digit: one digit more, which numbers the items of a SID (TIGER)",
    )


class ItemLossSettings(Section):
    """How items are told apart in training."""

    only_with: ClassVar[OnlyWith] = (
        ("negatives", "kind", ("sampled_softmax", "bce", "gbce")),
        ("negative_power", "kind", ("sampled_softmax", "bce", "gbce")),
        ("logq", "kind", ("sampled_softmax",)),
        ("calibration", "kind", ("gbce",)),
        ("label_smoothing", "kind", ("softmax",)),
    )

    kind: Literal["softmax", "sampled_softmax", "bce", "gbce"] = Field(
        "softmax",
        description="softmax: over all items; sampled_softmax: over the target and negatives shared by the batch; bce: "
        "each target against negatives of its own; gbce: the same, calibrated for few negatives",
    )
    negatives: int = Field(
        256, ge=1, le=2**24, description="negatives: of a batch (sampled_softmax) or of each target (bce, gbce)"
    )
    negative_power: float = Field(
        0.0, ge=0, le=1, description="negatives are drawn by training events to this power; 0: every item alike"
    )
    logq: bool = Field(True, description="sampled_softmax: correct scores for how often their item is drawn")
    calibration: float = Field(0.75, ge=0, le=1, description="gbce: t, from plain BCE (0) to fully calibrated (1)")
    cosine: bool = Field(False, description="compare directions only: scores are cosines over the temperature")
    temperature: float = Field(1.0, gt=0, description="scores are divided by it")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="softmax: probability mass spread over all items")


class RetrievalSettings(Section):
    """How items are found that may be the best by their scores."""

    only_with: ClassVar[OnlyWith] = (("candidates", "index", ("auto", "hnsw", "ivf_pq")),)

    index: Literal["auto", "exact", "hnsw", "ivf_pq"] = Field(
        "auto",
        description="exact: all items are scored; hnsw, ivf_pq: an index of item vectors (faiss) gives candidates, and "
        "those are scored exactly; auto: exact below 100,000 items and on GPUs, then hnsw, from 500,000 items ivf_pq",
    )
    candidates: int = Field(
        200, ge=1, le=2**20, description="items that the index gives for each user (raised to what a list needs)"
    )


class TrainingSettings(Section):
    """The training loop."""

    batch_size: int = Field(256, ge=1, le=2**20, description="targets per optimiser step, over all devices together")
    epochs: int = Field(100, ge=1, le=10**6, description="most passes over the training targets; the cosine ends here")
    steps_per_epoch: int | None = Field(
        None,
        ge=1,
        description="most optimiser steps of an epoch, whose targets are then drawn anew from all of them; null: every "
        "target once",
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay on matrices (not on norms and biases)")
    warmup_steps: int = Field(500, ge=0, description="steps of linear warm-up")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    gradient_clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 turns clipping off")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="what an exponential moving average of the weights keeps of itself at every step; the average is "
        "validated, kept and saved in place of the weights; 0: the weights themselves",
    )
    validate_every: int = Field(1, ge=1, description="epochs between validations (and checkpoints)")
    validation_users: int | None = Field(None, ge=1, description="validate on this many users, drawn once; null: all")
    validation_decoding: dict[str, Any] = Field(
        {},
        description="decoding settings that differ during validation, for example {beam: 32}; one alone: "
        "training.validation_decoding.beam=32",
    )
    patience: int = Field(10, ge=1, description="validations without improvement before training stops")
    table_updates: Literal["auto", "all_rows", "asked_rows"] = Field(
        "auto",
        description="ID embeddings that a step updates: all_rows: of all items (AdamW); asked_rows: of those that it asks "
        "for, so that a step costs as much whatever the number of items; auto: asked_rows from 100,000 items on where the "
        "loss draws negatives and one process trains",
    )
    precision: Literal["auto", "32", "bf16"] = Field("auto", description="auto: bf16 on GPUs that have it, else 32-bit")
    compile: bool = Field(
        False, description="run the network through torch.compile: faster steps after minutes of compiling (long runs)"
    )
    accelerator: str = Field("auto", description="Lightning accelerator: auto, cpu, gpu...")
    devices: int = Field(1, ge=1, le=1024, description="number of devices (processes) of each machine")
    nodes: int = Field(1, ge=1, le=1024, description="number of machines; all see the run folder (torchrun, SLURM)")
    strategy: str = Field("auto", description="Lightning strategy: auto, ddp...")
    loggers: tuple[Literal["csv", "tensorboard"], ...] = Field(
        ("csv",), description="where metrics of every epoch are written, in the run folder"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.epochs % self.validate_every:
            raise ValueError(
                f"training.epochs {self.epochs} is not a multiple of training.validate_every {self.validate_every}: the "
                "last epochs would never be validated, so never kept"
            )
        if self.table_updates == "asked_rows" and self.processes > 1:
            raise ValueError(
                f"training.table_updates=asked_rows is for one process, found {self.processes} (training.devices, "
                "training.nodes); leave it out, or train in one process"
            )
        if self.batch_size < self.processes:
            times = f" x training.nodes {self.nodes}" if self.nodes > 1 else ""
            raise ValueError(f"training.batch_size {self.batch_size} is less than training.devices {self.devices}{times}")
        if self.ema_decay and self.strategy.startswith(SHARDED):
            raise ValueError(
                f"training.ema_decay = {self.ema_decay} averages weights that every process holds whole, but "
                f"training.strategy {self.strategy} shares them out; choose ddp, or leave ema_decay out"
            )
        return self

    @property
    def processes(self) -> int:
        """Over all machines together; each takes its share of every batch."""
        return self.devices * self.nodes


class UpdateSettings(TrainingSettings):
    """The training loop of a fitted model that goes on learning; its default is short (``shortened``)."""

    epochs: int = Field(3, ge=0, le=10**6, description="most passes over the training targets; 0: no training")

    @classmethod
    def shortened(cls, fitted: TrainingSettings) -> dict[str, Any]:
        """What a recipe says of training, with a third of its epochs (one at least) and a tenth of its warm-up."""
        return fitted.model_dump() | {
            "epochs": max(1, round(fitted.epochs / 3)),
            "validate_every": 1,
            "warmup_steps": fitted.warmup_steps // 10,
        }


class DocumentSettings(Section):
    """What a retriever of documents learns from besides queries, and is chosen by."""

    index_documents: tuple[Literal["title", "first_sentence", "sentences", "text"], ...] = Field(
        ("first_sentence", "text"),
        description="what of each document is asked with in training, beside the queries, to find it: its title, its first "
        "sentence, each of its sentences, its whole text; []: nothing, so that only documents with queries are learnt",
    )
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="share of the queries that is held out of training to choose by, drawn by the seed"
    )


class EvaluationSettings(Section):
    """What ``diffgrm evaluate`` reports."""

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (5, 10, 20), min_length=1, description="list lengths k of the metrics @k (10 is always among them)"
    )
    diversity: bool = Field(
        True,
        description="also how unlike each other the texts of a list's items are (diversity@k), for which the words of all "
        "item texts are counted once",
    )
