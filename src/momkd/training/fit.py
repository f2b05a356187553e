"""The loop: one model on one fold, with its best epoch chosen on the validation patients."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from sklearn.metrics import roc_auc_score
from torch import Tensor

from momkd.errors import TrainingError
from momkd.experiment import ModelSettings, TrainSettings
from momkd.models.momkd import MoMKD
from momkd.student.threads import use_threads
from momkd.training.initialise import initialise_memory
from momkd.training.resume import Progress, load_point, save_point
from momkd.training.sampler import balanced_epoch
from momkd.training.samples import FitData, Sample, collate, pack_all
from momkd.training.seeds import derive_seed, generator

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
EpochCallback = Callable[[dict[str, float]], None]


@dataclass(frozen=True, eq=False)
class FitResult:
    """The model at its best epoch, and how it got there: one dict an epoch in ``history``."""

    model: MoMKD
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float


def fit(
    data: FitData,
    model_settings: ModelSettings,
    settings: TrainSettings,
    *,
    resume_file: Path | None = None,
    save_every_seconds: float = 20.0,
    on_epoch: EpochCallback | None = None,
) -> FitResult:
    """Train until the validation AUC has not risen for ``patience`` epochs; the best epoch wins.

    All randomness comes from ``settings.seed`` and the epoch number, so a fit that resumes from ``resume_file`` ends
    in the same bytes as one that was never stopped. Raises TrainingError when a loss is not finite.
    """
    if len({sample.label for sample in data.val}) < len(data.classes):
        raise TrainingError("the validation patients are not of all classes, so no AUC can choose the best epoch")
    threads = torch.get_num_threads() if settings.threads == "auto" else settings.threads
    with _own_random_state(), use_threads(threads):
        return _Fit(data, model_settings, settings, resume_file, save_every_seconds, on_epoch).run()


class _Fit:
    """The state of one fit; ``run`` reads as the algorithm."""

    def __init__(
        self,
        data: FitData,
        model_settings: ModelSettings,
        settings: TrainSettings,
        resume_file: Path | None,
        save_every_seconds: float,
        on_epoch: EpochCallback | None,
    ) -> None:
        self.data, self.settings = data, settings
        self.resume_file, self.save_every_seconds, self.on_epoch = resume_file, save_every_seconds, on_epoch
        self.fabric = Fabric(accelerator=settings.accelerator, devices=1)
        torch.manual_seed(derive_seed(settings.seed, "weights"))
        self.model = MoMKD(data.width, data.n_genes, len(data.classes), model_settings).to(self.fabric.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.progress = Progress(lr=settings.lr)
        self.best: dict[str, Tensor] = {}

    def run(self) -> FitResult:
        """Initialise or resume, then train, validate, keep the best, stop."""
        resume_file, device = self.resume_file, self.fabric.device
        if resume_file is not None and resume_file.is_file():
            self.progress, weights, self.best = load_point(resume_file, self.optimiser)
            self.model.load_state_dict(weights)
            logger.info("resumed after epoch %d", self.progress.epoch)
        else:
            initialise_memory(self.model, self.data.train, self.data.bags, device, self.settings.seed)
        module, optimiser = self.fabric.setup(self.model, self.optimiser)
        last_saved = time.monotonic()
        while not self._finished():
            started = time.monotonic()
            record = self._train_epoch(module, optimiser)
            self._after_epoch(record, started)
            if resume_file is not None and time.monotonic() - last_saved >= self.save_every_seconds:
                save_point(resume_file, self.progress, self.model.state_dict(), self.best, self.optimiser)
                last_saved = time.monotonic()
        self.model.load_state_dict(self.best)
        self.model.eval()
        return FitResult(self.model, self.progress.history, self.progress.best_epoch, self.progress.seconds)

    def _finished(self) -> bool:
        progress = self.progress
        return (
            progress.epoch >= self.settings.epochs or progress.epoch - progress.best_epoch >= self.settings.patience
        ) and progress.epoch > 0

    def _train_epoch(self, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, float]:
        """One epoch of balanced draws; returns the mean of every loss over the epoch's slides."""
        settings, epoch = self.settings, self.progress.epoch + 1
        order = balanced_epoch(self.data.train, generator(settings.seed, "sampler", epoch))
        torch.manual_seed(derive_seed(settings.seed, "dropout", epoch))
        self.model.train()
        sums: dict[str, float] = {}
        for batch_samples in _chunks(order, settings.batch_size):
            batch = collate(batch_samples, self.data, self.fabric.device)
            losses = module(batch.bags, batch.labels, batch.rna, batch.paired)
            values = losses.values()
            if not math.isfinite(values["total"]):
                slides = ", ".join(sample.slide_id for sample in batch_samples)
                raise TrainingError(
                    f"epoch {epoch}: the loss became {values['total']} on slides {slides}; lower train.lr "
                    "or set features.normalize: standard"
                )
            optimiser.zero_grad()
            self.fabric.backward(losses.total)
            if settings.clip > 0:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
            optimiser.step()
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch_samples)
        return {f"loss_{name}": value / len(order) for name, value in sums.items()}

    def _after_epoch(self, record: dict[str, float], started: float) -> None:
        """Validate, keep the best weights, lower the learning rate on a plateau, write history."""
        progress = self.progress
        progress.epoch += 1
        auc, loss = validate(self.model, self.data, self.fabric.device)
        # A small validation set gives ties in AUC: the lower loss decides them.
        if (auc, -loss) > (progress.best_auc, -progress.best_loss):
            progress.best_epoch, progress.best_auc, progress.best_loss = progress.epoch, auc, loss
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        lr = progress.lr
        self._plateau(auc)
        progress.seconds += time.monotonic() - started
        temperature = float(self.model.student.log_temperature.detach().exp().clamp(0.01, 2.0))
        row = {"epoch": float(progress.epoch), **record, "val_auc": auc, "val_loss": loss, "lr": lr}
        row["temperature"] = temperature
        progress.history.append(row)
        logger.info("epoch %d: loss %.4f, validation AUC %.4f", progress.epoch, row["loss_total"], auc)
        if self.on_epoch is not None:
            self.on_epoch(row)

    def _plateau(self, auc: float) -> None:
        """Multiply the learning rate by the factor after more than ``plateau_patience`` epochs without a rise."""
        progress, settings = self.progress, self.settings
        # The relative threshold is torch's ReduceLROnPlateau default, which the published training uses.
        if auc > progress.plateau_best * (1.0 + 1e-4):
            progress.plateau_best, progress.plateau_bad_epochs = auc, 0
        else:
            progress.plateau_bad_epochs += 1
        if progress.plateau_bad_epochs > settings.plateau_patience:
            progress.lr *= settings.plateau_factor
            progress.plateau_bad_epochs = 0
            for group in self.optimiser.param_groups:
                group["lr"] = progress.lr


@torch.inference_mode()
def score(model: MoMKD, samples: Sequence[Sample], data: FitData, device: torch.device) -> FloatArray:
    """Class probabilities of slides, (slides, classes) float64, in eval mode and without RNA."""
    model.eval()
    rows = [
        torch.softmax(model.student(bags).logits.double(), dim=-1).cpu().numpy()
        for _, bags in pack_all(samples, data.bags, device)
    ]
    return np.concatenate(rows)


def validate(model: MoMKD, data: FitData, device: torch.device) -> tuple[float, float]:
    """AUC and mean cross-entropy over the validation patients, a patient being the mean of its slides."""
    prob, labels = patient_probabilities(score(model, data.val, data, device), data.val)
    loss = float(-np.log(np.clip(prob[np.arange(len(labels)), labels], 1e-12, None)).mean())
    return float(roc_auc_score(labels, prob[:, 1])), loss


def patient_probabilities(
    slide_prob: FloatArray, samples: Sequence[Sample]
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Mean probability of each patient's slides, patients in sorted order, and their labels."""
    patients = sorted({sample.patient_id: sample.label for sample in samples}.items())
    position = {patient: i for i, (patient, _) in enumerate(patients)}
    rows = np.array([position[sample.patient_id] for sample in samples])
    sums = np.zeros((len(patients), slide_prob.shape[1]))
    np.add.at(sums, rows, slide_prob)
    counts = np.bincount(rows, minlength=len(patients))[:, None]
    return sums / counts, np.array([label for _, label in patients])


def _chunks(items: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Run with deterministic algorithms; leave torch's random state as it was found."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
