"""Reading omics tables: orientation, matching, formats, and everything that must be refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from momkd.errors import OmicsError
from momkd.omics.table import OmicsTable, read_omics

PATIENTS = ["P1", "P2", "P3"]
VALUES = pd.DataFrame(
    [[1.0, 2.5, -3.0], [4.0, 0.0, 6.25], [7.0, 8.0, 9.0]], index=PATIENTS, columns=["ESR1", "ERBB2", "MKI67"]
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def by_rows(tmp_path: Path, rows: str, name: str = "rna.csv") -> Path:
    return write(tmp_path / name, "patient_id,A,B\n" + rows)


def expected() -> pd.DataFrame:
    return VALUES[sorted(VALUES.columns)].astype(np.float32)


def assert_is_values(table: OmicsTable) -> None:
    pd.testing.assert_frame_equal(table.values, expected(), check_names=False, check_index_type=False)
    assert table.missing == ()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["rna.csv", "rna.tsv", "rna.txt", "rna.csv.gz", "rna.tsv.gz", "rna.parquet"])
def test_every_format_and_orientation_reads_the_same(tmp_path: Path, name: str, transposed: bool) -> None:
    frame = VALUES.T if transposed else VALUES
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="," if ".csv" in name else "\t")
    table = read_omics(path, PATIENTS)
    assert_is_values(table)
    axis = "columns" if transposed else "rows"
    assert any(f"3 of 3 patients of the cohort are {axis}" in note for note in table.notes)


def test_parquet_whose_ids_are_an_ordinary_first_column(tmp_path: Path) -> None:
    VALUES.reset_index(names="patient_id").to_parquet(tmp_path / "rna.parquet", index=False)
    assert_is_values(read_omics(tmp_path / "rna.parquet", PATIENTS))


def test_header_of_r_without_a_name_for_the_id_column(tmp_path: Path) -> None:
    text = VALUES.to_csv(sep="\t").removeprefix("\t")
    assert_is_values(read_omics(write(tmp_path / "rna.tsv", text), PATIENTS))


def test_byte_order_mark_windows_line_ends_quotes_and_spaces(tmp_path: Path) -> None:
    text = '\ufeff"patient_id", "A" ,"B"\r\n"P1", 1.5,"2"\r\n P2 ,3,4\r\n'
    table = read_omics(write(tmp_path / "rna.csv", text), ["P1", "P2"])
    assert table.values.to_numpy().tolist() == [[1.5, 2.0], [3.0, 4.0]]
    assert list(table.values.columns) == ["A", "B"]


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    table = read_omics(by_rows(tmp_path, "001,1,2\n1,3,4\n"), ["001"])
    assert list(table.values.index) == ["001"]
    assert table.values.to_numpy().tolist() == [[1.0, 2.0]]


def test_values_are_float32_sorted_and_independent_of_file_order(tmp_path: Path) -> None:
    VALUES.iloc[::-1, ::-1].to_csv(tmp_path / "rna.csv")
    table = read_omics(tmp_path / "rna.csv", PATIENTS[::-1])
    assert_is_values(table)
    assert set(table.values.dtypes) == {np.dtype(np.float32)}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_permuting_rows_and_columns_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    genes = data.draw(st.lists(st.sampled_from(["A", "B", "A.1", "C"]), min_size=1, max_size=6))
    cells = data.draw(
        st.lists(st.lists(st.integers(0, 2), min_size=len(genes), max_size=len(genes)), min_size=4, max_size=4)
    )
    names = ["P1", "P2", "P3", "stranger"]
    rows = data.draw(st.permutations(range(4)))
    columns = data.draw(st.permutations(range(len(genes))))

    def text(row_order: list[int], column_order: list[int]) -> str:
        lines = [",".join(["id", *(genes[c] for c in column_order)])]
        lines += [",".join([names[r], *(str(cells[r][c]) for c in column_order)]) for r in row_order]
        return "\n".join(lines) + "\n"

    first = read_omics(write(tmp_path / "a.csv", text(list(range(4)), list(range(len(genes))))), PATIENTS)
    second = read_omics(write(tmp_path / "a.csv", text(list(rows), list(columns))), PATIENTS)
    pd.testing.assert_frame_equal(first.values, second.values)
    assert first.notes == second.notes
    assert first.values.columns.is_unique
    assert len(first.values.columns) == len(genes)


def test_strangers_and_missing_patients_are_said(tmp_path: Path) -> None:
    table = read_omics(by_rows(tmp_path, "P1,1,2\nQ9,not read,4\n"), ["P1", "P3", "P2"])
    assert table.missing == ("P2", "P3")
    assert list(table.values.index) == ["P1"]
    assert any("1 rows are no patients of the cohort and were left out: Q9" in note for note in table.notes)


def test_annotation_columns_of_genes_by_patients_are_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "rna.tsv", "Hugo_Symbol\tcytoband\tP1\tP2\nESR1\t6q25\t1\t2\nERBB2\t17q12\t3\t4\n")
    table = read_omics(path, ["P1", "P2"])
    assert table.values.loc["P1"].to_dict() == {"ERBB2": 3.0, "ESR1": 1.0}
    assert any("1 columns are no patients" in note and "cytoband" in note for note in table.notes)


# --- TCGA barcodes ---------------------------------------------------------------------------------------------------


def test_barcodes_are_matched_on_the_case_id(tmp_path: Path) -> None:
    path = by_rows(tmp_path, "TCGA-A7-A0D9-01A-11R-A034-07,1,2\ntcga.3c.aali.01,3,4\n")
    table = read_omics(path, ["TCGA-A7-A0D9", "TCGA-3C-AALI"])
    assert table.values["A"].to_dict() == {"TCGA-3C-AALI": 3.0, "TCGA-A7-A0D9": 1.0}
    assert any("2 TCGA barcodes matched on the 12-character case id" in note for note in table.notes)


def test_long_barcodes_in_the_cohort_match_case_ids_in_the_table(tmp_path: Path) -> None:
    table = read_omics(by_rows(tmp_path, "TCGA-A7-A0D9,1,2\n"), ["TCGA-A7-A0D9-01Z-00-DX1"])
    assert list(table.values.index) == ["TCGA-A7-A0D9-01Z-00-DX1"]


def test_the_primary_tumour_is_taken_among_several_samples(tmp_path: Path) -> None:
    path = by_rows(tmp_path, "TCGA-A7-A0D9-11A,9,9\nTCGA-A7-A0D9-01A,1,2\nTCGA-A7-A0D9-06A,8,8\n")
    table = read_omics(path, ["TCGA-A7-A0D9"])
    assert table.values.loc["TCGA-A7-A0D9", "A"] == 1.0
    assert any("2 samples passed over" in note and "TCGA-A7-A0D9-06A" in note for note in table.notes)


def test_two_primary_samples_are_refused(tmp_path: Path) -> None:
    path = by_rows(tmp_path, "TCGA-A7-A0D9-01B,9,9\nTCGA-A7-A0D9-01A,1,2\n")
    with pytest.raises(
        OmicsError, match=r"rna.csv: patient TCGA-A7-A0D9: 2 samples: TCGA-A7-A0D9-01A, TCGA-A7-A0D9-01B"
    ):
        read_omics(path, ["TCGA-A7-A0D9"])


def test_a_single_sample_of_other_tissue_is_said(tmp_path: Path) -> None:
    table = read_omics(by_rows(tmp_path, "TCGA-A7-A0D9-11A,1,2\n"), ["TCGA-A7-A0D9"])
    assert any("only sample is no primary tumour (-01): TCGA-A7-A0D9-11A" in note for note in table.notes)


def test_two_patients_of_one_case_cannot_share_a_sample(tmp_path: Path) -> None:
    path = by_rows(tmp_path, "TCGA-A7-A0D9,1,2\n")
    with pytest.raises(OmicsError, match="are the same TCGA case"):
        read_omics(path, ["TCGA-A7-A0D9-01A", "TCGA-A7-A0D9-06A"])


# --- Genes -----------------------------------------------------------------------------------------------------------


def test_repeated_gene_names_are_numbered_by_content_around_existing_names(tmp_path: Path) -> None:
    path = write(tmp_path / "rna.csv", "id,A,A.1,A,A\nP1,3,9,1,2\nP2,0,0,0,0\n")
    table = read_omics(path, ["P1", "P2"])
    assert table.values.loc["P1"].to_dict() == {"A": 1.0, "A.1": 9.0, "A.2": 2.0, "A.3": 3.0}
    assert any("1 gene names occur several times" in note and note.endswith(": A") for note in table.notes)


def test_log2p1_is_computed_in_double_precision(tmp_path: Path) -> None:
    table = read_omics(by_rows(tmp_path, "P1,0,1\nP2,1023,123456.789\n"), ["P1", "P2"], transform="log2p1")
    expected_values = np.log2(np.array([[0, 1], [1023, 123456.789]]) + 1).astype(np.float32)
    np.testing.assert_array_equal(table.values.to_numpy(), expected_values)


def test_a_doubtful_transform_is_said(tmp_path: Path) -> None:
    raw, logged = by_rows(tmp_path, "P1,0,54000\n"), by_rows(tmp_path, "P1,0,14.5\n", "log.csv")
    assert any("omics.transform: log2p1" in note for note in read_omics(raw, ["P1"]).notes)
    assert any("omics.transform: none" in note for note in read_omics(logged, ["P1"], transform="log2p1").notes)
    assert not any("omics.transform" in note for note in read_omics(logged, ["P1"]).notes)


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,A,B\n", "empty"),
        ("id\nP1\n", "one column only"),
        ("id;A;B\nP1;1;2\n", "the header has 2 semicolons; expected commas"),
        ("id,A,B\nQ1,1,2\n", "no patient of the cohort is found.*cohort's patients are P1, P2.*rows Q1.*columns A, B"),
        ("n,patient,A\n0,P1,x\n1,P2,y\n", "column 'patient' holds 2 of the patients: put it first"),
        ("id,P1,B\nP1,1,2\n", "orientation is ambiguous: 1 patients of the cohort are names of rows and 1 are names"),
        ("id,A,B\nP1,1,2\nP1,3,4\n", "patient P1: 2 samples: P1, P1"),
        ("id,A,B\nP1,1,2\nP2,3,high\n", "1 cells are no numbers, for example gene 'B', patient P2: 'high'"),
        ('id,A,B\nP1,1,"2,5"\nP2,3,4\n', "gene 'B', patient P1: '2,5'.*decimal point"),
        ("id,A,B\nP1,1,\nP2,NA,4\n", "2 cells are missing, for example gene 'A', patient P2"),
        ("id,A,B\nP1,1,inf\nP2,3,4\n", "1 cells are missing or infinite, for example gene 'B', patient P1"),
        ("id,A,B\nP1,1,1e300\nP2,3,4\n", "float32"),
        ("id,A,\nP1,1,2\nP2,3,4\n", r"1 genes have no name \(column 3 of the file\)"),
        ("id,A,B\nP1,1\nP2,3,4\n", "Expected 3 columns, got 2"),
        ("gene,P1,P2\nA,1,2\nB,x,4\n", "gene 'B', patient P1: 'x'"),
        ("gene,P1,P1\nA,1,2\n", "patient P1: 2 samples"),
        ("gene,P1,P2\nA,1,2\n,1,2\n", r"1 genes have no name \(row 3 of the file\)"),
    ],
)
def test_a_faulty_table_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "rna.csv", text)
    with pytest.raises(OmicsError, match=message) as caught:
        read_omics(path, ["P1", "P2"])
    assert str(path) in str(caught.value)


def test_negative_values_under_log2p1_are_refused(tmp_path: Path) -> None:
    path = by_rows(tmp_path, "P1,1,2\nP2,-0.5,4\n")
    with pytest.raises(OmicsError, match=r"log2p1 of 1 negative values.*gene 'A', patient P2: -0.5.*transform: none"):
        read_omics(path, ["P1", "P2"], transform="log2p1")


def test_an_unknown_transform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OmicsError, match="expected none or log2p1"):
        read_omics(by_rows(tmp_path, "P1,1,2\n"), ["P1"], transform="ln")  # type: ignore[arg-type]


def test_a_semicolon_file_named_tsv_and_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OmicsError, match=r"expected \.csv"):
        read_omics(write(tmp_path / "rna.xlsx", "x"), ["P1"])
    with pytest.raises(OmicsError, match="no such omics table"):
        read_omics(tmp_path / "absent.csv", ["P1"])
    with pytest.raises(OmicsError, match="the header has 2 commas; expected tabs"):
        read_omics(by_rows(tmp_path, "P1,1,2\n", "rna.tsv"), ["P1"])


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(VALUES.to_csv().encode() * 50)
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "plain.csv.gz").write_text("id,A\nP1,1\n")
    (tmp_path / "zipped.csv").write_bytes(whole)
    (tmp_path / "latin.csv").write_bytes("id,A,B\nP1,1,2\nÄ,1,2\n".encode("latin-1"))
    (tmp_path / "rna.parquet").write_text("no parquet")
    for name in ("cut.csv.gz", "plain.csv.gz", "zipped.csv", "latin.csv", "rna.parquet"):
        with pytest.raises(OmicsError, match=f"{name}: not a readable"):
            read_omics(tmp_path / name, PATIENTS)


def test_a_missing_cell_of_a_patient_outside_the_cohort_does_not_matter(tmp_path: Path) -> None:
    table = read_omics(by_rows(tmp_path, "P1,1,2\nQ1,NA,oops\n"), ["P1"])
    assert table.values.to_numpy().tolist() == [[1.0, 2.0]]


def test_the_real_cohort(shared: Path) -> None:
    cohort = pd.read_csv(shared / "data" / "tcga_brca" / "cohort.csv")
    table = read_omics(shared / "data" / "tcga_brca" / "rna.csv.gz", cohort["patient_id"].tolist())
    assert table.values.shape == (669, 1558)
    assert len(table.missing) == 15
    assert np.isfinite(table.values.to_numpy()).all()
