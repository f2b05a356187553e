"""A simulated cohort on disk: features, tables, experiment file and truth, and an external cohort beside it."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.errors import CohortError
from momkd.files import atomic_path, write_json, write_text
from momkd.simulator.features import encode, simulate_encoder
from momkd.simulator.molecular import Patients, simulate_patients, simulate_rna
from momkd.simulator.settings import SimulationSettings
from momkd.simulator.tissue import Tissue, simulate_tissue
from momkd.simulator.truth import Truth, write_truth
from momkd.slides.bag import Bag
from momkd.slides.writer import write_bag

CLASSES = ("negative", "positive")
LABEL = "marker"
ENCODER = "simulated"


@dataclass(frozen=True)
class SimulatedCohort:
    """Where a simulated cohort lies: its experiment file, its truth, and the same of the external cohort."""

    folder: Path
    experiment: Path
    truth: Path
    external_experiment: Path
    external_truth: Path
    settings: SimulationSettings


def simulate(settings: SimulationSettings, out: Path) -> SimulatedCohort:
    """Simulate a paired cohort into the folder ``out``, and an external cohort from unseen sites into ``out/external``.

    Leaves features/<slide>.h5 (float16), cohort.csv, rna.csv.gz (counts, patients × genes), experiment.yaml,
    truth.npz and simulation.json (the settings). The external cohort has another stain, and no RNA. The same settings
    give the same bytes, and a slide does not depend on how many others there are. Raises CohortError if ``out``
    exists and is not an empty folder.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CohortError(f"{out}: found something there, expected no such folder or an empty one → give another --out")
    external = out / "external"
    _write_cohort(settings, external, external=True)
    _write_cohort(settings, out, external=False)
    write_json(out / "simulation.json", asdict(settings))
    return SimulatedCohort(
        out, out / "experiment.yaml", out / "truth.npz", external / "experiment.yaml", external / "truth.npz", settings
    )


def _write_cohort(settings: SimulationSettings, folder: Path, *, external: bool) -> None:
    patients = simulate_patients(settings, external=external)
    slides = _slides(patients, settings, external)
    missing = _missing(slides, settings, external)
    tissues = _write_slides(settings, folder / "features", patients, slides, missing, external)
    prefix = "E" if external else "S"
    sites = [f"{prefix}{site + 1}" for site in patients.site.tolist()]
    rows = [
        (patients.patient_id[patient], name, sites[patient], CLASSES[int(patients.label[patient])])
        for name, patient, _ in slides
    ]
    write_text(folder / "cohort.csv", _csv(["patient_id", "slide_id", "site", LABEL], rows))
    if not external:
        _write_rna(settings, patients, folder / "rna.csv.gz")
    write_truth(_truth(patients, tissues), folder / "truth.npz")
    write_text(folder / "experiment.yaml", _experiment(sorted(missing), external))


def _slides(patients: Patients, settings: SimulationSettings, external: bool) -> list[tuple[str, int, int]]:
    """Return (slide id, patient, number within the patient) of every slide: each patient has one, a few have more."""
    n = len(patients.patient_id)
    rng = np.random.default_rng([settings.seed, 40, int(external)])
    extra = np.bincount(rng.integers(n, size=round((settings.slides_per_patient - 1.0) * n)), minlength=n)
    return [
        (f"{name}-{number + 1}", patient, number)
        for patient, name in enumerate(patients.patient_id)
        for number in range(1 + int(extra[patient]))
    ]


def _missing(slides: Sequence[tuple[str, int, int]], settings: SimulationSettings, external: bool) -> set[str]:
    rng = np.random.default_rng([settings.seed, 41, int(external)])
    chosen = rng.permutation(len(slides))[: round(settings.slides_missing * len(slides))]
    return {slides[index][0] for index in chosen.tolist()}


def _write_slides(
    settings: SimulationSettings,
    folder: Path,
    patients: Patients,
    slides: Sequence[tuple[str, int, int]],
    missing: set[str],
    external: bool,
) -> dict[str, Tissue]:
    encoder = simulate_encoder(settings, external=external)
    tissues = {}
    for name, patient, number in slides:
        if name in missing:
            continue
        rng = np.random.default_rng([settings.seed, 50, int(external), patient, number])
        n_patches = max(4, round(settings.patches * np.exp(settings.patches_spread * rng.normal())))
        tissue = simulate_tissue(n_patches, settings.foci_share, rng)
        features = encode(encoder, tissue, patients.visible[patient], int(patients.site[patient]), rng)
        # Scanners leave a margin, so that the grid does not start at the corner of the slide.
        coords = rng.integers(0, 5000, 2) + tissue.cells * settings.patch_size_level0
        target = folder / f"{name}.h5"
        bag = Bag(
            slide_id=name,
            features=features,
            coords=coords,
            patch_size_level0=float(settings.patch_size_level0),
            mpp=settings.mpp,
            encoder=ENCODER,
            edges={},
            layout="momkd",
            source=target,
        )
        write_bag(bag, target, producer="momkd simulator")
        tissues[name] = tissue
    return tissues


def _truth(patients: Patients, tissues: dict[str, Tissue]) -> Truth:
    sizes = [len(tissue.types) for tissue in tissues.values()]
    empty: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
    return Truth(
        patient_id=np.array(patients.patient_id),
        z=patients.z,
        bayes_score=patients.bayes_score,
        visible_score=patients.visible_score,
        clean_label=patients.clean_label,
        label=patients.label,
        site=patients.site,
        slide_id=np.array(list(tissues)),
        offsets=np.cumsum([0, *sizes], dtype=np.int64),
        informative=np.concatenate([empty.astype(bool), *(tissue.informative for tissue in tissues.values())]),
        tissue_type=np.concatenate([empty, *(tissue.types for tissue in tissues.values())]),
    )


def _write_rna(settings: SimulationSettings, patients: Patients, target: Path) -> None:
    """Write counts of the patients who have RNA, as gzip without a name or time in its header."""
    genes, counts = simulate_rna(settings, patients)
    n = len(patients.patient_id)
    rng = np.random.default_rng([settings.seed, 42])
    without = set(rng.permutation(n)[: round(settings.rna_missing * n)].tolist())
    kept = [patient for patient in range(n) if patient not in without]
    index = pd.Index([patients.patient_id[patient] for patient in kept], name="patient_id")
    table = pd.DataFrame(counts[kept], index=index, columns=list(genes))
    text = table.to_csv(lineterminator="\n").encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as packed:
        packed.write(text)
    with atomic_path(target) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(",".join(row) for row in [header, *rows]) + "\n"


def _experiment(missing: Sequence[str], external: bool) -> str:
    """Return the experiment file; a reader should see what is special about a simulated cohort."""
    exclude = f", exclude: [{', '.join(missing)}]" if missing else ""
    omics = "" if external else "omics:    {table: rna.csv.gz, transform: log2p1}   # simulated counts\n"
    what = "An external cohort: unseen sites, another stain, no RNA." if external else "A simulated cohort."
    return (
        f"# {what} What is true of it is in truth.npz.\n"
        f"cohort:   {{table: cohort.csv, patient: patient_id, slide: slide_id{exclude}}}   # group: site is possible\n"
        "features: {dir: features}\n"
        "graph:    {k: 8}\n"
        f"{omics}"
        f"task:     {{label: {LABEL}, classes: [{', '.join(CLASSES)}]}}\n"
    )
