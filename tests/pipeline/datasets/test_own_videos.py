"""What people give to `predict` becomes videos with names of their own; whatever is left out is named."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from pipeline.datasets.own_videos import OwnVideo, find_videos
from pipeline.file_names import SAFE_BYTES, at_home, is_printable, name_for, naturally, safe_name


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(given, **options) -> dict[str, str]:
    return {video.name: Path(video.path).name for video in find_videos(given, **options).videos}


def left_out(given) -> dict[str, str]:
    return {Path(error.file).name: error.reason for error in find_videos(given).left_out}


def test_a_folder_of_videos_gives_each_in_natural_order_and_names_everything_else(tmp_path):
    touch(tmp_path, "film10.mp4", "film2.MOV", "cover.jpg", "notes.txt", "frames/0.jpg", "clips.mp4/1.png",
          "deep/er/film.mp4", ".hidden.mp4", "._film2.MOV", "Thumbs.db")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    assert list(found(str(tmp_path)).values()) == ["clips.mp4", "film2.MOV", "film10.mp4", "frames", "gone.mp4"]
    assert left_out(str(tmp_path)) == {"cover.jpg": "picture-beside-videos", "notes.txt": "not-a-video",
                                       "deep": "not-a-video"}


def test_many_files_of_a_kind_are_named_in_one_line_with_their_count(tmp_path):
    touch(tmp_path, "film.mp4", *(f"{number}.jpg" for number in range(12)))
    error, = find_videos(str(tmp_path)).left_out
    assert error.file == tmp_path / "0.jpg"
    assert "like 11 more" in str(error)
    assert f"--set predict.input='{tmp_path}/*.jpg'" in str(error)


def test_a_folder_of_pictures_is_one_video_and_named_pictures_are_one_each(tmp_path):
    touch(tmp_path, "trip/0.jpg", "trip/1.webp", "trip/masks/0.png")
    assert found(str(tmp_path / "trip")) == {"trip": "trip"}
    assert left_out(str(tmp_path / "trip")) == {"masks": "folder-beside-frames"}
    assert found(str(tmp_path / "trip" / "1.webp")) == {"1": "1.webp"}
    assert found(str(tmp_path / "trip" / "*.*")) == {"0": "0.jpg", "1": "1.webp"}
    assert found(str(tmp_path / "**" / "*.png")) == {"0": "0.png"}


def test_animated_pictures_are_videos_and_never_frames(tmp_path):
    touch(tmp_path, "a.gif", "b.GIF", "frames/0.jpg", "loops/c.gif")
    assert set(found(str(tmp_path))) == {"a", "b", "frames"}
    assert left_out(str(tmp_path)) == {"loops": "not-a-video"}
    assert found(str(tmp_path / "loops")) == {"c": "c.gif"}
    assert left_out(str(tmp_path / "loops")) == {}


def test_lists_name_paths_globs_and_what_does_not_exist(tmp_path, monkeypatch):
    touch(tmp_path, "a/film.mp4", "b/film.mp4", "c1.avi", "c2.avi")
    (tmp_path / "videos.txt").write_bytes("\ufeff# mine\r\na/film.mp4\r\n\r\nc*.avi\r\ngone.mp4\r\n".encode())
    assert found(str(tmp_path / "videos.txt")) == {"film": "film.mp4", "c1": "c1.avi", "c2": "c2.avi"}
    assert "gone.mp4" in str(find_videos(str(tmp_path / "videos.txt")).left_out[0])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(found(("~/a/film.mp4", "~/b", "~/a/film.mp4"))) == ["a_film_mp4", "b_film_mp4"]


def test_videos_of_one_name_get_more_of_their_path_and_earlier_results_keep_theirs(tmp_path):
    touch(tmp_path, "film.mp4", "film.mov", "other/film.mp4")
    assert set(found(str(tmp_path))) == {"film_mp4", "film_mov"}
    given = str(tmp_path / "film.mp4")
    assert found(given, taken={"film": str(tmp_path / "other" / "film.mp4")}) == {"film_mp4": "film.mp4"}
    assert found(str(tmp_path), taken={"film": given}) == {"film_mov": "film.mov", "film": "film.mp4"}
    assert found(given, taken={"film": ""}) == {"film": "film.mp4"}     # results of a version that noted no path


@pytest.mark.parametrize("content", [
    "film.mp4\r\n".encode("utf-16"), b'"film.mp4"\n', b"'film.mp4'", b"a\0b\nfilm.mp4"])
def test_a_list_may_come_from_another_system(tmp_path, content):
    touch(tmp_path, "film.mp4")
    (tmp_path / "videos.txt").write_bytes(content)
    assert found(str(tmp_path / "videos.txt")) == {"film": "film.mp4"}


def test_a_line_is_a_comment_unless_there_is_such_a_file(tmp_path):
    touch(tmp_path, "#1.mp4", "'quoted'.mp4")
    (tmp_path / "videos.txt").write_text("# mine\n#1.mp4\n#2.mp4\n'quoted'.mp4\n")
    assert found(str(tmp_path / "videos.txt")) == {"#1": "#1.mp4", "'quoted'": "'quoted'.mp4"}


def test_lists_that_lead_in_a_circle_are_named_and_cost_nothing_else(tmp_path):
    touch(tmp_path, "film.mp4")
    (tmp_path / "a.txt").write_text("b.txt\nfilm.mp4\n")
    (tmp_path / "b.txt").write_text("a.txt\n")
    (tmp_path / "self.txt").write_text("deep/../self.txt\n")
    (tmp_path / "deep").mkdir()
    assert found(str(tmp_path / "a.txt")) == {"film": "film.mp4"}
    assert left_out(str(tmp_path / "a.txt")) == {"a.txt": "list-in-itself"}
    with pytest.raises(FileNotFoundError, match=r"self\.txt: the list self\.txt names it"):
        find_videos(str(tmp_path / "self.txt"))


def test_companions_are_not_matches_of_a_glob(tmp_path):
    touch(tmp_path, "film.mp4", "Thumbs.db", "desktop.ini")
    assert found(str(tmp_path / "*")) == {"film": "film.mp4"}


def test_what_a_list_names_in_vain_is_named_by_its_path(tmp_path):
    touch(tmp_path, "film.mp4")
    assert left_out((str(tmp_path / "film.mp4"), str(tmp_path / "gone.mp4"))) == {"gone.mp4": "missing-file"}


@pytest.mark.parametrize("name", ["Screenshot 9.41.00\u202fAM", "\u65e5\u672c\u3000\u8a9e", "a\xa0b",
                                  "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0646\u0645\u06cc\u200c\u062e"])
def test_spaces_and_joiners_of_other_scripts_stay_in_a_name(name):
    assert safe_name(name) == name_for(name) == name


@pytest.mark.parametrize("name", ["n" * 300, "ü" * 200, "new\nline", "a/b\\c", "line\u2028end",
                                  os.fsdecode(b"broken\xff"), "..", " "])
def test_any_name_of_a_file_becomes_one_that_result_files_can_have(name):
    safe = safe_name(name)
    assert len(safe.encode()) <= SAFE_BYTES
    assert is_printable(safe)
    assert not set(safe) & set("/\\")
    assert safe not in (".", "..")
    assert safe_name(safe) == safe


def test_two_long_names_stay_apart():
    assert safe_name("n" * 300 + "a") != safe_name("n" * 300 + "b")


def test_a_video_travels_as_plain_text_whatever_its_name():
    video = OwnVideo(name="a", path=os.fsdecode(b"/tmp/\xff.mp4"))
    assert video.to_text().isascii()
    assert OwnVideo.from_text(video.to_text()) == video


@pytest.mark.parametrize("given", ["", "nothing.mp4", "*.mp4", "empty", ("a.mp4", "b.mp4")])
def test_nothing_to_predict_is_an_error_with_the_cure(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nothing to predict.*--set predict\.input="):
        find_videos(given)


def test_numbers_of_every_script_are_numbers():
    names = [f"\u0641{''.join(chr(0x660 + int(digit)) for digit in str(number))}" for number in (1, 2, 10, 11)]
    assert naturally(reversed(names)) == names
    assert naturally(["\uff11\uff10", "\uff12"]) == ["\uff12", "\uff11\uff10"]
    assert naturally(["a\xb2", "a1"]) == ["a1", "a\xb2"]      # a superscript is no number


def test_a_home_folder_that_nobody_has_is_named_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"~nobody_here/a\.mp4: it is not known which home folder '~nobody_here'"):
        at_home("~nobody_here/a.mp4")
    touch(tmp_path, "~lock.mp4")
    assert at_home("~lock.mp4") == Path("~lock.mp4")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/a.mp4") == tmp_path / "a.mp4"


@pytest.mark.parametrize("given", ["", (), ("",)])
def test_an_empty_input_names_no_folder(given):
    with pytest.raises(FileNotFoundError, match=r"holds nothing to predict\. Give a video file"):
        find_videos(given)


def test_a_folder_that_two_paths_lead_to_is_predicted_once(tmp_path):
    touch(tmp_path, "clips/0.jpg", "clips/1.jpg", "film.mp4")
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("clips")
    (tmp_path / "x" / "film.mp4").symlink_to(tmp_path / "film.mp4")
    given = [tmp_path / "clips", tmp_path / "x" / ".." / "clips", tmp_path / "link", tmp_path / "clips",
             tmp_path / "film.mp4", tmp_path / "x" / "film.mp4"]
    videos = find_videos([str(path) for path in given])
    assert [video.path for video in videos.videos] == [str(given[0]), str(given[4])]
    assert [(error.reason, error.file) for error in videos.left_out] == [
        ("named-twice", given[1]), ("named-twice", given[2]), ("named-twice", given[5])]
    assert f"it is the same as {given[0]}, which is predicted once" in str(videos.left_out[0])


def test_another_path_to_an_earlier_video_keeps_its_name(tmp_path):
    touch(tmp_path, "clips/0.jpg", "clips/1.jpg", "other/clips/0.jpg")
    (tmp_path / "link").symlink_to("clips")
    taken = {"clips": str(tmp_path / "clips")}
    assert list(found(str(tmp_path / "other" / ".." / "clips"), taken=taken)) == ["clips"]
    assert list(found(str(tmp_path / "other" / "clips"), taken=taken)) != ["clips"]


def test_what_a_glob_matches_and_is_no_video_by_its_name_is_named_and_counted(tmp_path):
    touch(tmp_path, "a.mp4", "b.JPG", "notes.txt", "more.txt", "README", "frames/0.jpg")
    assert set(found(str(tmp_path / "*"))) == {"a", "b", "frames"}
    errors = {Path(error.file).name: error for error in find_videos(str(tmp_path / "*")).left_out}
    assert {error.reason for error in errors.values()} == {"not-a-video"}
    assert set(errors) == {"README", "more.txt"}
    assert "like 1 more" in str(errors["more.txt"])
    assert found(str(tmp_path / "README")) == {"README": "README"}      # named itself: its content decides


@pytest.mark.parametrize("folder", ["plain", "it's [a] $HOME"])
def test_the_cure_for_what_lies_beside_videos_gives_exactly_that(tmp_path, folder):
    touch(tmp_path / folder, "film.mp4", "a.JPEG", "b.webp", "c.webp", "deep/er/other.mp4")
    cures = {}
    for error in find_videos(str(tmp_path / folder)).left_out:
        option, setting = shlex.split(error.cure.partition(": ")[2])
        assert option == "--set"
        cures[Path(error.file).name] = sorted(found(setting.removeprefix("predict.input=")).values())
    assert cures == {"a.JPEG": ["a.JPEG"], "b.webp": ["b.webp", "c.webp"], "deep": ["film.mp4", "other.mp4"]}
