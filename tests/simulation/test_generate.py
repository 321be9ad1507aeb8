"""Generation as a whole: same bytes for the same seed, resumption, refusals."""

import argparse
import hashlib

import pytest
from synthetic_data import SEED, quiet, settings

from perception3d.errors import UserError
from perception3d.simulation import command
from perception3d.simulation import generate as module
from perception3d.simulation.generate import generate


def digest(root):
    """Hash of every file below a folder, by relative path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def small(out_dir, **changes):
    return settings(out_dir, **{"frames_per_scene": 1, "sweeps_per_keyframe": 1, **changes})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Files of a run in two processes."""
    root = tmp_path_factory.mktemp("straight") / "data"
    summary = generate(small(root), workers=2, progress=quiet)
    assert summary.num_resumed == 0
    assert [path.name for path in root.parent.iterdir()] == ["data"]
    return digest(root)


def test_interrupted_run_goes_on_and_gives_the_same_bytes(straight, tmp_path, monkeypatch):
    root = tmp_path / "data"
    run_scene = module._run_scene

    def fail_at_second(options, scene, work):
        if scene == 1:
            raise KeyboardInterrupt
        return run_scene(options, scene, work)

    monkeypatch.setattr(module, "_run_scene", fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        generate(small(root), workers=1, progress=quiet)
    assert not root.exists()
    monkeypatch.undo()
    summary = generate(small(root), workers=1, progress=quiet)
    assert summary.num_resumed == 1
    assert digest(root) == straight
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_other_seed_gives_other_bytes(straight, tmp_path):
    generate(
        small(tmp_path / "data", seed=SEED + 1, images="none", occupancy=False, scenes=1),
        workers=1,
        progress=quiet,
    )
    other = digest(tmp_path / "data")
    assert not set(other.values()) & {
        value for name, value in straight.items() if name.endswith(".bin")
    }
    assert not any(name.endswith((".jpg", ".npy")) for name in other)


def test_images_of_the_validation_scenes_only(tmp_path):
    generate(small(tmp_path / "data", images="val", occupancy=False), 1, quiet)
    pictures = [path.name for path in (tmp_path / "data").rglob("*.jpg")]
    assert len(pictures) == 6
    assert all("-0002__" in name for name in pictures)


def test_existing_folder_is_kept_unless_told(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "precious").write_text("x")
    with pytest.raises(UserError, match="exists already.*--overwrite"):
        generate(small(root), workers=1, progress=quiet)
    options = small(root, images="none", occupancy=False, scenes=1, overwrite=True)
    with pytest.raises(UserError, match="no data set of this command"):
        generate(options, workers=1, progress=quiet)
    assert (root / "precious").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_old_data_set_is_replaced_when_told(tmp_path):
    root = tmp_path / "data"
    (root / "v1.0-synthetic").mkdir(parents=True)
    (root / "v1.0-synthetic" / "splits.json").write_text("{}")
    (root / "old").write_text("x")
    options = small(root, images="none", occupancy=False, scenes=1, overwrite=True)
    generate(options, workers=1, progress=quiet)
    assert not (root / "old").exists()
    assert (root / "v1.0-synthetic" / "sample.json").is_file()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scenes": 0, "val_scenes": 0}, "--scenes must be at least 1, got 0"),
        ({"frames_per_scene": 0}, "--frames-per-scene must be at least 1, got 0"),
        ({"val_scenes": 3}, r"--val-scenes must be at most --scenes \(2\), got 3"),
        ({"sweeps_per_keyframe": 11}, "--sweeps-per-keyframe must be 1 to 10, got 11"),
        ({"image_size": (8, 256)}, "--image-size must be at least 16x16 px, got 8x256"),
        ({"images": "some"}, "--images must be one of"),
    ],
)
def test_values_out_of_bounds(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        generate(settings(tmp_path / "data", **changes), workers=1, progress=quiet)
    assert list(tmp_path.iterdir()) == []


def parse(*arguments):
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    return parser.parse_args(["synthetic", *arguments])


def test_command_writes_what_it_says(tmp_path):
    options = ["--scenes", "1", "--frames-per-scene", "1", "--val-scenes", "1", "--workers", "1"]
    smaller = ["--no-images", "--no-occupancy", "--sweeps-per-keyframe", "2"]
    arguments = parse("--out-dir", str(tmp_path / "data"), *options, *smaller)
    (line,) = arguments.command(arguments, quiet)
    assert "v1.0-synthetic, 1 scenes, 1 key frames, 2 files" in line


def test_command_refuses_nonsense(tmp_path, capsys):
    arguments = parse("--out-dir", str(tmp_path / "data"), "--workers", "0")
    with pytest.raises(UserError, match="--workers must be at least 1, got 0"):
        arguments.command(arguments, quiet)
    with pytest.raises(SystemExit):
        parse("--out-dir", "x", "--image-size", "704")
    assert "expected WIDTHxHEIGHT such as 704x256, got '704'" in capsys.readouterr().err
