import errno

import pytest

from coolbits.arguments import refusing
from coolbits.artifacts.errors import CoolbitsError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CoolbitsError("study.yaml: no such study file"), "study.yaml: no such study file"),
        (
            PermissionError(errno.EACCES, "no matter", "results/work"),
            "results/work: Permission denied; what is finished stays: run again once that is mended",
        ),
    ],
)
def test_what_is_refused_is_one_sentence_and_status_2(capsys, error, said):
    with pytest.raises(SystemExit) as ended, refusing():
        raise error
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"coolbits: {said}\n"


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no such file", "x"), ValueError("a mistake here")])
def test_a_mistake_of_the_program_is_no_refusal(error):
    with pytest.raises(type(error)), refusing():
        raise error
