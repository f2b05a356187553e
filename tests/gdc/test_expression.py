"""Merging STAR counts, against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gdc.conftest import GENES, add_case, add_rna, add_slide, star_counts
from tests.gdc.server import FakeGdc

from momkd.errors import GdcError
from momkd.gdc.ask import make_plan
from momkd.gdc.client import Client
from momkd.gdc.download import download
from momkd.gdc.expression import merge_expression, read_provenance
from momkd.gdc.plan import Plan, make_settings, write_plan
from momkd.omics.table import read_omics

PATIENTS = ["TCGA-A1-AAAA", "TCGA-A1-BBBB", "TCGA-B2-DDDD"]


@pytest.fixture
def folder(planned: tuple[Path, Plan], client: Client) -> Path:
    download(planned[0], client, kinds=["rna"])
    return planned[0]


def place(folder: Path, number: int) -> Path:
    return folder / "rna" / f"{number:08x}.rna_seq.augmented_star_gene_counts.tsv"


def test_tpm_of_protein_coding_genes(folder: Path) -> None:
    """TPM are the counts / 2; PINX1 is two genes, which are added; a gene without a symbol is called by its id."""
    seen: list[tuple[int, int, str]] = []
    merged = merge_expression(folder, progress=lambda *args: seen.append(args))
    table = pd.read_parquet(merged.table)
    expected = pd.DataFrame(
        {
            "gene": ["ENSG06.1", "ESR1", "PINX1", "TP53"],
            "TCGA-A1-AAAA": np.array([30, 10, 35, 5], np.float32),
            "TCGA-A1-BBBB": np.array([6, 2, 7, 1], np.float32),
            "TCGA-B2-DDDD": np.array([0.5, 0.5, 0.5, 0], np.float32),
        }
    )
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert {str(kind) for kind in table.dtypes[1:]} == {"float32"}
    assert (merged.genes, merged.patients, merged.summed) == (4, 3, ("PINX1",))
    assert seen == [(number, 3, patient) for number, patient in enumerate(PATIENTS, 1)]
    assert (folder / "rna_genes.csv").read_text().splitlines() == [
        "gene,gene_ids,gene_types",
        "ENSG06.1,ENSG06.1,protein_coding",
        "ESR1,ENSG02.1,protein_coding",
        "PINX1,ENSG03.1;ENSG04.2,protein_coding",
        "TP53,ENSG01.1,protein_coding",
    ]


def test_counts_of_all_genes_are_whole_numbers(folder: Path) -> None:
    merged = merge_expression(folder, values="unstranded", gene_type=None)
    table = pd.read_parquet(merged.table).set_index("gene")
    assert table.loc["XIST"].tolist() == [50, 10, 0]
    assert table.loc["PINX1"].tolist() == [70, 14, 1]
    assert {str(kind) for kind in table.dtypes} == {"int64"}
    assert not [name for name in table.index if name.startswith("N_")]


def test_fpkm(folder: Path) -> None:
    table = pd.read_parquet(merge_expression(folder, values="fpkm_unstranded").table).set_index("gene")
    assert table["TCGA-A1-AAAA"].tolist() == [15, 5, 17.5, 2.5]


def test_omics_reads_it(folder: Path) -> None:
    merge_expression(folder)
    read = read_omics(folder / "rna.parquet", ["TCGA-B2-CCCC", *PATIENTS], transform="log2p1")
    assert read.missing == ("TCGA-B2-CCCC",)
    assert list(read.values.columns) == ["ENSG06.1", "ESR1", "PINX1", "TP53"]
    assert read.values.loc["TCGA-A1-AAAA", "PINX1"] == pytest.approx(np.log2(36))


def test_it_says_what_it_is_and_is_the_same_every_time(folder: Path) -> None:
    table = merge_expression(folder).table
    first = table.read_bytes()
    found = read_provenance(table)
    assert (found["project"], found["values"], found["gene_type"]) == ("TCGA-BRCA", "tpm_unstranded", "protein_coding")
    assert "added up" in found["rule"]
    assert merge_expression(folder).table.read_bytes() == first
    merge_expression(folder, gene_type="lncRNA")
    assert read_provenance(table)["gene_type"] == "lncRNA"


def test_missing_files_are_named_with_the_command(folder: Path) -> None:
    place(folder, 24).unlink()
    with pytest.raises(GdcError, match=r"1 of 3 .* of patients TCGA-A1-BBBB → momkd gdc download .* --what rna"):
        merge_expression(folder)
    assert not (folder / "rna.parquet").exists()


def test_an_unknown_gene_type_lists_those_there_are(folder: Path) -> None:
    with pytest.raises(GdcError, match="no gene of type 'mRNA'; expected one of lncRNA, protein_coding"):
        merge_expression(folder, gene_type="mRNA")


BROKEN = {
    "another gene model": (star_counts([1, 2], GENES[:2]), "its 2 genes are not the 6 of"),
    "another order": (star_counts([1] * 6, GENES[::-1]), "its 6 genes are not the 6 of"),
    "negative": (
        star_counts([1, 2, -3, 4, 5, 6]),
        "missing, infinite or negative, the first of ENSG03.1",
    ),
    "missing": (star_counts([1] * 6).replace(b"0.5000", b"", 1), "1 values of tpm_unstranded are missing"),
    "not a number": (star_counts([1] * 6).replace(b"0.5000", b"one", 1), "no STAR-count table with the columns"),
    "another table": (b"gene\tvalue\nTP53\t1\n", "no STAR-count table with the columns"),
    "ragged": (star_counts([1] * 6) + b"ENSG07\tX\n", "no STAR-count table with the columns"),
    "a page": (b"<html>not found</html>", "no STAR-count table with the columns"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_all_listed_and_nothing_is_written(
    name: str, gdc: FakeGdc, client: Client, tmp_path: Path
) -> None:
    body, words = BROKEN[name]
    for number, patient in ((31, "TCGA-A1-CCC1"), (32, "TCGA-A1-CCC2")):
        add_slide(gdc, number + 100, f"{patient}-01Z-00-DX1", b"slide")
        add_rna(gdc, number, f"{patient}-01A-11R-A00Z-07", [], body=body)
        add_case(gdc, patient)
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    write_plan(plan, tmp_path)
    assert download(tmp_path, client, kinds=["rna"]).complete
    with pytest.raises(GdcError) as caught:
        merge_expression(tmp_path)
    assert str(caught.value).startswith("2 problems:")
    assert str(caught.value).count(words) == 2
    assert str(place(tmp_path, 31)) in str(caught.value)
    assert not (tmp_path / "rna.parquet").exists()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    symbols=st.lists(st.sampled_from(["A", "B", "C", ""]), min_size=1, max_size=6),
    data=st.data(),
)
def test_symbols_are_the_sums_of_their_genes(
    tmp_path_factory: pytest.TempPathFactory, symbols: list[str], data: st.DataObject
) -> None:
    """Against pandas: group by symbol and add; no patient's values depend on another's."""
    rows = [data.draw(st.lists(st.integers(0, 10**6), min_size=len(symbols), max_size=len(symbols))) for _ in range(3)]
    genes = [(f"ENSG{number:02d}", symbol, "protein_coding") for number, symbol in enumerate(symbols)]
    gdc = FakeGdc()
    for number, (patient, counts) in enumerate(zip(PATIENTS, rows, strict=True)):
        add_slide(gdc, number, f"{patient}-01Z-00-DX1", b"x")
        add_rna(gdc, number + 10, f"{patient}-01A-11R-A00Z-07", [], body=star_counts(counts, genes))
        add_case(gdc, patient)
    folder = tmp_path_factory.mktemp("sums")
    with gdc:
        client = Client(gdc.url)
        write_plan(make_plan(client, make_settings("TCGA-BRCA"))[0], folder)
        download(folder, client, kinds=["rna"])
    merged = pd.read_parquet(merge_expression(folder, values="unstranded").table).set_index("gene")
    named = [symbol or gene for gene, symbol, _ in genes]
    expected = pd.DataFrame(np.array(rows).T, index=named, columns=PATIENTS).groupby(level=0).sum()
    pd.testing.assert_frame_equal(merged, expected, check_dtype=False, check_names=False)
