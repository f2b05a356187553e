"""The knobs of a simulated cohort."""

from __future__ import annotations

from dataclasses import dataclass, fields

from momkd.errors import ExperimentError

# Lowest and highest value allowed of each knob; the seed and sizes have no upper end.
_LIMITS: dict[str, tuple[float, float]] = {
    "patients": (4, float("inf")),
    "external_patients": (4, float("inf")),
    "sites": (1, 1000),
    "external_sites": (1, 1000),
    "prevalence": (0.02, 0.98),
    "bayes_auc": (0.55, 0.999),
    "visibility": (0.5, 0.999),
    "genes": (10, float("inf")),
    "gene_share": (0.0, 1.0),
    "features": (8, float("inf")),
    "patches": (1, float("inf")),
    "patches_spread": (0.0, 3.0),
    "slides_per_patient": (1.0, 100.0),
    "foci_share": (0.0, 1.0),
    "signal": (0.0, 100.0),
    "site_strength": (0.0, 100.0),
    "site_confounding": (0.0, 10.0),
    "external_shift": (0.0, 100.0),
    "label_noise": (0.0, 0.5),
    "rna_missing": (0.0, 1.0),
    "slides_missing": (0.0, 0.9),
    "patch_size_level0": (1, 1 << 16),
    "mpp": (0.01, 100.0),
    "seed": (0, float("inf")),
}


@dataclass(frozen=True)
class SimulationSettings:
    """What a simulated cohort is like; the defaults are those of the demo.

    ``bayes_auc`` is the AUC of the best score of the whole molecular state, ``visibility`` that of the best score of
    the part that histology shows: no histology-only method can do better on average, sites aside. Informative patches
    are ``foci_share`` of the tumour, and differ from other tumour by ``signal`` times the visible state, in units of
    the patch noise. ``site_strength`` scales the stain and expression shifts of sites; ``site_confounding`` is the
    log-odds by which one standard deviation of the outcome score moves patients between sites. ``patches`` is the
    median of a log-normal whose log has standard deviation ``patches_spread``. ``slides_missing`` of the slides stand
    in the table and have no file; the experiment lists them as excluded. Raises ExperimentError for a value out of
    range.
    """

    patients: int = 160
    external_patients: int = 80
    sites: int = 8
    external_sites: int = 3
    prevalence: float = 0.3
    bayes_auc: float = 0.95
    visibility: float = 0.80
    genes: int = 2000
    gene_share: float = 0.15
    features: int = 64
    patches: int = 256
    patches_spread: float = 0.35
    slides_per_patient: float = 1.2
    foci_share: float = 0.15
    signal: float = 4.0
    site_strength: float = 1.0
    site_confounding: float = 0.3
    external_shift: float = 2.0
    label_noise: float = 0.0
    rna_missing: float = 0.05
    slides_missing: float = 0.02
    patch_size_level0: int = 512
    mpp: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        found = []
        for knob in fields(self):
            value, (low, high) = getattr(self, knob.name), _LIMITS[knob.name]
            whole = isinstance(knob.default, int)
            number = isinstance(value, int) or (isinstance(value, float) and not whole)
            if not number or isinstance(value, bool):
                found.append(f"{knob.name} is {value!r}, expected a {'whole ' if whole else ''}number")
            elif not low <= value <= high:
                found.append(f"{knob.name} is {value}, expected {low:g} … {high:g}")
        if not found and self.visibility >= self.bayes_auc:
            found.append(f"visibility {self.visibility} is not below bayes_auc {self.bayes_auc}: it shows a part of it")
        if found:
            raise ExperimentError("simulation: " + "; ".join(found))
