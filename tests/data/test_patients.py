"""Names of patients that name nobody are noticed, said, and not taken for one patient."""

import pytest

from radimagenet_jax.data.patients import is_no_patient, known_patients, unknown_names


@pytest.mark.parametrize(
    "name", ["", " ", "nan", "NaN", "None", "unknown", "UNKNOWN", "N/A", "ANONYMOUS", "Anonymized^"]
)
def test_placeholders_name_nobody(name):
    assert is_no_patient(name)


@pytest.mark.parametrize("name", ["p1", "ID_0003", "17", "Nanette", "Nonesuch", "00012"])
def test_names_of_patients_are_kept(name):
    assert not is_no_patient(name)


def test_zero_is_a_patient_where_patients_are_numbered_from_it():
    numbered = [str(i // 3) for i in range(30)]
    assert not unknown_names(numbered, are_stated=True)
    assert unknown_names(["0"] * 20 + numbered, are_stated=True) == {"0"}
    assert unknown_names(["0", "0", "7", "8"], are_stated=True) == {"0"}
    assert unknown_names(["000", "001", "002"], are_stated=True) == frozenset()


def test_one_name_of_all_files_is_no_patient_unless_the_user_says_so():
    names = ["HOSPITAL"] * 40 + [f"p{i}" for i in range(20)]
    assert unknown_names(names, are_stated=False) == {"HOSPITAL"}
    assert not unknown_names(names, are_stated=True)
    assert unknown_names(["X7"] * 60, are_stated=False) == {"X7"}
    assert not unknown_names([f"p{i // 30}" for i in range(60)], are_stated=False)


def test_what_is_left_out_is_said_without_a_name_that_may_be_somebodys():
    named = {f"{i}.dcm": "Doe^Jane" if i < 40 else f"p{i}" for i in range(60)}
    patients, (note,) = known_patients(named, source="PatientID", are_stated=False)
    assert "40 of 60 images name no patient in PatientID" in note
    assert "Doe" not in note
    assert patients["0.dcm"] == ""
    assert patients["59.dcm"] == "p59"
    named = {"a": "nan", "b": "", "c": "p1"}
    _, (note,) = known_patients(named, source="the column patient", are_stated=True)
    assert "('nan', empty)" in note
    assert known_patients({"a": "", "b": ""}, source="x", are_stated=True)[1] == []
