"""Which names of patients name nobody.

Anonymisers, spreadsheets and scanners write something where a patient's number is missing. Taken
for one patient, all those images would stay together: in one split, or as one cluster of an
interval.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from radimagenet_jax.errors import escaped

# What stands for nobody, in lower case and without what is no letter or digit.
_NOBODY = frozenset(
    (
        *("", "nan", "none", "null", "nil", "na", "nat", "unknown", "unkown", "unk", "undefined"),
        *("missing", "empty", "notavailable", "notapplicable", "nopatient", "noname", "noid"),
        *("anonymous", "anonymus", "anonym", "anon", "anonymized", "anonymised", "anonymousized"),
        *("anonymouspatient", "anonymizedpatient", "anonymisedpatient", "deidentified", "deident"),
        *("removed", "hidden", "redacted", "masked", "private", "confidential", "patient"),
        *("patientid", "pid", "id", "test", "testpatient", "dummy", "default", "x", "xx", "xxx"),
        *("unbekannt", "inconnu", "anonyme", "desconocido", "sconosciuto", "anonimo"),
    )
)
# One name of so many images, and of more than half of all, is a name that all were given.
_MANY = 20
# Where patients are numbered from 0, patient 0 has no more images than others, by about this.
_TIMES_OTHERS = 2


def is_no_patient(name: str) -> bool:
    """Tells whether a name stands for nobody, such as 'nan', 'Unknown' or 'ANONYMOUS'.

    '0' is not among them here, since patients may be numbered from 0: `unknown_names` sees all.
    """
    return re.sub(r"[\W_]", "", name).casefold() in _NOBODY


def _is_zero(name: str) -> bool:
    return bool(name) and not name.strip("0")


def unknown_names(names: Sequence[str], *, are_stated: bool) -> frozenset[str]:
    """Returns which names of a data set's patients are none.

    Args:
      names: Of each image.
      are_stated: Whether the user names the patients. If not, the names are those of files, and
        one that more than half of the images have, among them at least 20, is taken for what an
        anonymiser gave to all.
    """
    counts = Counter(names)
    found = {name for name in counts if is_no_patient(name)}
    others = [count for name, count in counts.items() if name not in found and not _is_zero(name)]
    for zero in filter(_is_zero, counts):
        one = f"{zero[:-1]}1"
        if one not in counts or counts[zero] > _TIMES_OTHERS * max(others):
            found.add(zero)
    if not are_stated:
        found |= {
            name
            for name, count in counts.items()
            if count >= _MANY and 2 * count > len(names) and count > 10 * _median(counts, name)
        }
        if len(counts) == 1 and len(names) > 1:
            found |= set(counts)
    return frozenset(found)


def known_patients(
    named: Mapping[str, str], *, source: str, are_stated: bool
) -> tuple[dict[str, str], list[str]]:
    """Leaves out the names that are none.

    Args:
      named: Each image's patient, by key; never shown.
      source: Where they are from, for the note: 'the column patient'.
      are_stated: See `unknown_names`.

    Returns:
      The patients, '' where unknown, and notes about them.
    """
    unknown = unknown_names([*named.values()], are_stated=are_stated)
    patients = {key: "" if name in unknown else name for key, name in named.items()}
    count = sum(not name for name in patients.values())
    if not count or (count == len(named) and set(named.values()) == {""}):
        return patients, []  # nothing claims to know patients
    placeholders = {name for name in unknown if name and (_is_zero(name) or is_no_patient(name))}
    reasons = [f"'{escaped(name)}'" for name in sorted(placeholders)]
    if "" in unknown:
        reasons.append("empty")
    # A name that may be somebody's is not shown.
    if unknown - placeholders - {""}:
        reasons.append("one name that most images share")
    return patients, [
        f"{count:,} of {len(named):,} images name no patient in {source} "
        f"({', '.join(reasons[:5])}): each of them is taken for a patient of its own, which cannot "
        "keep images of one person in one split."
    ]


def _median(counts: Mapping[str, int], but: str) -> int:
    others = sorted(count for name, count in counts.items() if name != but)
    return others[len(others) // 2] if others else 0
