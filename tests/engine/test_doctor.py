import sys
from importlib import metadata

import pytest

from perception3d import doctor
from perception3d.doctor import Finding, at_least, examine, report


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_here_everything_needed_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert "next: make demo" in out
    assert "native operators   CPU library loaded" in out


def test_missing_and_old_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("mmengine", "open3d", "open3d-cpu", *doctor.SPCONV):
            raise metadata.PackageNotFoundError(name)
        return {"nuscenes-devkit": "1.1.9", "numpy": "2.3.1"}.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = by_name(examine())
    assert findings["mmengine"] == Finding(
        "missing", "mmengine", "not installed", "pip install 'mmengine>=0.10.7'"
    )
    assert findings["nuscenes-devkit"].state == "missing"
    assert "1.1.9, needs 1.2.0" in findings["nuscenes-devkit"].text
    assert findings["numpy and devkit"].state == "note"
    assert findings["open3d"].state == "absent"
    assert findings["spconv"].state == "absent"
    assert report(list(findings.values())).splitlines()[-1] == (
        "next: pip install 'mmengine>=0.10.7'"
    )
    assert doctor.main() == 1


@pytest.mark.parametrize(
    ("python", "wanted"), [((3, 11, 7), "spconv-cu120"), ((3, 12, 1), "spconv-cu126")]
)
def test_the_spconv_without_cuda(
    monkeypatch: pytest.MonkeyPatch, python: tuple[int, ...], wanted: str
) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda name: "2.3.8" if name == "spconv" else None)
    monkeypatch.setattr(sys, "version_info", python)
    (finding,) = doctor._spconv()
    assert finding.state == "note"
    assert "CPU-only package, which nothing uses" in finding.text
    assert finding.command.endswith(f"pip install {wanted}")


def test_missing_libraries_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda name: "0.20.0")
    monkeypatch.setattr(doctor, "_loads", lambda name: name != "libGL.so.1")
    findings = by_name(list(doctor._open3d()))
    assert findings["open3d libraries"].command.startswith("apt-get install libgl1")


@pytest.mark.parametrize(
    ("version", "wanted", "enough"),
    [("2.10.0", "2.9", True), ("2.9.1+cpu", "2.10", False), ("1.26.4", "1.26", True)],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, enough: bool) -> None:
    assert at_least(version, wanted) is enough
