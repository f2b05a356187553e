"""The commented experiment file that ``momkd init`` writes."""

from __future__ import annotations

from pathlib import Path

from momkd.errors import ExperimentError
from momkd.files import write_text

TEMPLATE = """\
# A momkd experiment. Paths are relative to this file. `momkd check` reports every problem of it at once.

cohort:
  table: cohort.csv            # one row a slide (CSV, TSV or Parquet)
  patient: patient_id          # column names
  slide: slide_id              # feature file: <features.dir>/<slide_id>.h5 or .pt
  # group: site                # patients of one group never straddle folds (strongly advised for several hospitals)
  # exclude: [slide-17]        # slides left out on purpose

features:
  dir: features                # TRIDENT, CLAM, STAMP, published MoMKD or `momkd import-features`
  normalize: none              # none | standard | quantile, fitted on the training patients of each fold
  # slide_mpp: 0.5             # µm per level-0 pixel where the files lack it; or mpp.csv: slide_id, mpp
  # store: packed              # a packed copy, made on first use: faster, shared by all folds (large cohorts)

graph:
  k: 8                         # nearest neighbours; 0 for features without coordinates

omics:                         # leave this section out to train without RNA: the control of every claim
  table: rna.csv.gz            # patients × genes or genes × patients
  transform: none              # none | log2p1 (for counts, TPM, FPKM)
  scale: standard
  select: {method: xgboost, n: 768}   # xgboost | variance | mad | list | none
  # share: 0.5                 # of the patients with omics, use a random half (how many pairs are enough?)
  # Several tables: {rna: {table: rna.csv.gz, transform: log2p1}, cnv: {table: cnv.csv}}; patients may be in some only

task:
  type: classification
  label: HER2                  # column of the cohort table; rows without a label are left out and reported
  classes: [negative, positive]  # two or more; upper and lower case are the same; of two, the positive class last
  # map: {"0": negative, "1+": negative, "3+": positive}
  # type: ordinal              # classes in rising order, e.g. [low, medium, high]
  # type: continuous           # label: a column of numbers; no classes; bins: 3 (codebooks of the memory)
  # type: survival             # label: the column of times; event: column of 1/0, dead/alive …; no classes; bins: 4

model:
  name: momkd
  preset: default              # default | published; every field can be set on its own

train: {epochs: 100, patience: 10, seed: 0}

cv: {folds: 5, repeats: 1, validation: 0.15, seed: 0}
"""


def write_template(target: Path) -> None:
    """Write the template; raises ExperimentError where a file is already."""
    if target.exists():
        raise ExperimentError(f"{target}: exists already; give another name: momkd init OTHER.yaml")
    write_text(target, TEMPLATE)
