"""The training recipe of a model: the field `train` of model.yml. Frozen, and checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from emadeploy.contract.plain import one_of, require, spec_path

SCHEDULES = ("cosine", "cosine_warm_restarts")
WEIGHTINGS = ("scalarization", "uncertainty")
PRECISIONS = ("fp32", "bf16", "fp16")
BATCH_NORMS = ("synchronised", "local", "frozen")


@dataclass(frozen=True)
class TrainSpec:
    """How a model is trained: Adam, its schedule, losses, augmentation. What is left out is off.

    **Length.** ``epochs``; ``batch_size`` frames a step, those of all devices together, and the gradients of
    ``accumulate`` such batches added up before each step of the optimiser.

    **Schedule** of ``learning_rate``, stepped with every batch: 'cosine' over the whole run, or 'cosine_warm_restarts'
    of ``warm_restart_epochs``, each ``warm_restart_factor`` times as long as the one before (SGDR, arXiv 1608.03983).
    The first ``warm_up_epochs`` rise linearly to it.

    **Losses** are weighted by 'scalarization' (each task's ``weight``) or 'uncertainty' (learned, homoscedastic).

    **Augmentation.** ``horizontal_flip``, of half the frames. ``random_scale``: frames are enlarged by up to this
    factor and cropped, which is a camera that has come nearer. ``colour_jitter``: brightness, contrast and saturation
    change by up to this share.

    **Stability.** ``clip_norm``: gradients are scaled down to this norm at most. ``ema_decay``: a running mean of the
    weights is what is validated and kept. ``precision``: that of the products; bf16 and fp16 are mixed.
    ``batch_norm``: over the frames of all devices ('synchronised': many devices compute what one would), over those
    of each device ('local'), or 'frozen', the statistics of the weights it starts from.

    **Judging.** ``validate_every`` epochs; ``early_stopping``: the run ends after so many validations in a row
    without a better one.
    """

    epochs: int = 200
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warm_restart_epochs: int = 25
    warm_restart_factor: int = 2
    warm_up_epochs: float = 0.0
    weighting: str = "scalarization"
    horizontal_flip: bool = True
    random_scale: float = 1.0
    colour_jitter: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    precision: str = "fp32"
    batch_norm: str = "synchronised"
    validate_every: int = 1
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        with spec_path("train"):
            for name in ("epochs", "batch_size", "accumulate", "warm_restart_epochs", "warm_restart_factor"):
                self._check_count(name)
            for name in ("validate_every", "early_stopping"):
                if getattr(self, name) is not None:
                    self._check_count(name)
            require(self.learning_rate > 0, f"learning_rate {self.learning_rate} is not positive")
            require(self.weight_decay >= 0, f"weight_decay {self.weight_decay} is negative")
            one_of("schedule", self.schedule, SCHEDULES)
            require(
                0 <= self.warm_up_epochs < self.epochs,
                f"warm_up_epochs {self.warm_up_epochs} is not between 0 and the {self.epochs} epochs of the run",
            )
            one_of("weighting", self.weighting, WEIGHTINGS)
            require(1 <= self.random_scale <= 4, f"random_scale {self.random_scale} is not between 1 (off) and 4")
            require(0 <= self.colour_jitter < 1, f"colour_jitter {self.colour_jitter} is not between 0 (off) and 1")
            if self.clip_norm is not None:
                require(self.clip_norm > 0, f"clip_norm {self.clip_norm} is not positive; leave it out for none")
            if self.ema_decay is not None:
                require(0 < self.ema_decay < 1, f"ema_decay {self.ema_decay} is not between 0 and 1, e.g. 0.999")
            one_of("precision", self.precision, PRECISIONS)
            one_of("batch_norm", self.batch_norm, BATCH_NORMS)

    def _check_count(self, name: str) -> None:
        value = getattr(self, name)
        require(isinstance(value, int) and value > 0, f"{name} {value!r} is not a positive int")
